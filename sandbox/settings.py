"""The sandbox's settings, which the control API changes while it runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Settings:
    """Times are in seconds; ``retry_scale`` is a factor and ``duplicates`` a probability.

    ``automatic_tax`` is the account's default for invoices that do not mention it.
    """

    limits: bool = True
    latency: bool = True
    mode: str = "live"
    concurrent_lists: int = 10
    lock_wait: float = 2.0
    search_lag: int = 20
    retry_scale: float = 1 / 600
    duplicates: float = 0.01
    shuffle: float = 0.05
    webhook_timeout: float = 10.0
    automatic_tax: bool = False


def validated(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return *defaults* updated with *values*; ValueError for an unknown name or another type."""
    for name, value in values.items():
        if name not in defaults:
            allowed = ", ".join(defaults) or "nothing"
            raise ValueError(f"unknown parameter: {name}; what may be given: {allowed}")
        kinds = (int, float) if isinstance(defaults[name], float) else type(defaults[name])
        if not isinstance(value, kinds) or isinstance(value, bool) != isinstance(
            defaults[name], bool
        ):
            raise ValueError(f"{name} cannot be {value!r}; give something like {defaults[name]!r}")
    return {**defaults, **values}
