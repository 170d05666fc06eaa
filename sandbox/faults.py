"""Faults that a test adds through the control API: lost responses, errors, delays, bad webhooks."""

from collections.abc import Mapping
from typing import Any, Final

from sandbox.settings import validated

# Fault → its description, and the defaults of its own parameters.
REQUEST_FAULTS: Final[Mapping[str, tuple[str, dict[str, Any]]]] = {
    "answer_lost_before": ("the connection breaks, nothing was done", {}),
    "answer_lost_after": ("the work was done and stored, the connection breaks", {}),
    "late_delivery": ("the connection breaks; the work is done `seconds` later", {"seconds": 1.0}),
    "error_500_before": ("500, nothing done, nothing stored", {}),
    "error_500_after": ("the work was done, the stored response is a 500", {}),
    "partial_500_after": ("half of the lines were applied, the stored response is a 500", {}),
    "rate_limited": ("429 with Stripe-Rate-Limited-Reason `reason`", {"reason": "endpoint-rate"}),
    "lock_timeout": ("429 lock_timeout without that header", {}),
    "slow": ("takes `seconds` longer", {"seconds": 5.0}),
}
WEBHOOK_FAULTS: Final[Mapping[str, tuple[str, dict[str, Any]]]] = {
    "webhook_drop": ("never sent; found by delivery_success=false", {}),
    "webhook_duplicate": ("sent twice", {}),
    "webhook_delay": ("sent `seconds` later by the account's clock", {"seconds": 60.0}),
    "webhook_reorder": ("the next `times` arrive in reverse, `gap` seconds apart", {"gap": 0.3}),
    "webhook_forge": ("preceded by a forged copy with a wrong signature", {}),
    "old_api_version": ("sent in the shape of `version`", {"version": "2022-11-15"}),
}
NO_FAULT: Final[dict[str, Any]] = {"kind": ""}


class Faults:
    """The active faults, oldest first.

    Each applies to the next ``times`` matching requests or events, after skipping ``after`` of them:
    ``match`` is an endpoint, an event type or ``*``; ``object`` restricts it to one id.
    """

    def __init__(self) -> None:
        self.active: list[dict[str, Any]] = []

    def add(self, params: dict[str, Any]) -> int:
        """Add a fault and return its number; ValueError for an unknown kind or parameter."""
        faults, kind = {**REQUEST_FAULTS, **WEBHOOK_FAULTS}, params.get("kind")
        if kind not in faults:
            raise ValueError(f"unknown fault: {kind}; there are: {', '.join(faults)}")
        common = {"kind": "", "match": "*", "times": 1, "after": 0, "object": ""}
        self.active.append(validated(params, common | faults[kind][1]))
        return len(self.active)

    def consume(self, kinds: Mapping[str, Any], name: str, objects: str) -> dict[str, Any]:
        """Return the first active fault of *kinds* that applies, and count it down; NO_FAULT if none does."""
        for fault in self.active:
            applies = fault["kind"] in kinds and fault["match"] in ("*", name)
            if applies and fault["object"] in objects:
                fault["after"] -= 1
                if fault["after"] < 0:
                    fault["times"] -= 1
                    self.active = [left for left in self.active if left["times"] > 0]
                    return fault
        return NO_FAULT
