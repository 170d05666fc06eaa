"""What the control path can change while we run."""

from dataclasses import dataclass


@dataclass(slots=True)
class Settings:
    """Seconds where it is a time; ``retry_scale`` and ``duplicates`` are factors of one."""

    limits: bool = True
    latency: bool = True
    mode: str = "live"
    concurrent_lists: int = 10
    lock_wait: float = 2.0
    search_lag: int = 20
    max_events: int = 200_000
    retry_scale: float = 1 / 600
    duplicates: float = 0.01
    shuffle: float = 0.05
    webhook_timeout: float = 10.0
