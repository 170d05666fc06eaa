"""What an operator decides about the ledger."""

from dataclasses import dataclass
from zlib import crc32

from billing.ledger.server import Copies

DAY_MS = 86_400_000
REMEMBERED_MS = 42 * DAY_MS
"""An id is remembered for at least this long after it came; ``record.lua`` knows the same figure."""


@dataclass(frozen=True, slots=True)
class LedgerPolicy:
    """Times in ms. Recorded usage is looked at after *flush_interval_ms*, give or take *flush_jitter*.

    Usage of a month in which nothing was recorded begins it until *settle_ms* after its end, and is late
    from then on. A sealed period is kept for *retention_ms*, *sync_history* syncs a customer are remembered,
    and after the server was replaced no period is cut for *replay_window_ms*: producers send again what
    it may have lost. A request that was given up may still arrive for *quiet_ms*. With *replicas*, usage is
    acknowledged once so many replicas have it (or refused after *replica_wait_ms*); that is for one
    server with replicas, not for a cluster.
    """

    flush_interval_ms: int = 900_000
    flush_jitter: float = 0.2
    usage_max_age_ms: int = 35 * DAY_MS
    usage_max_future_ms: int = 300_000
    retention_ms: int = 100 * DAY_MS
    sync_history: int = 100
    sync_grace_ms: int = 1_000
    settle_ms: int = 3_600_000
    replay_window_ms: int = 900_000
    quiet_ms: int = 600_000
    replicas: int = 0
    replica_wait_ms: int = 1_000

    def __post_init__(self) -> None:
        if self.usage_max_age_ms + self.usage_max_future_ms > REMEMBERED_MS:
            raise ValueError(
                "usage older than six weeks cannot be accepted: its id might be forgotten and it would "
                "be counted twice; lower BILLING_USAGE_MAX_AGE",
            )
        if self.retention_ms < self.usage_max_age_ms + 62 * DAY_MS:
            raise ValueError(
                "a sealed period must be kept two months longer than usage is accepted, or late usage "
                "would open it anew",
            )

    @property
    def copies(self) -> Copies | None:
        """The replicas that an acknowledgement waits for; None for none."""
        return Copies(self.replicas, self.replica_wait_ms) if self.replicas else None

    def interval(self, nonce: str) -> int:
        """How long usage may wait this time: the interval, spread so that customers do not move in step."""
        spread = int(self.flush_interval_ms * self.flush_jitter)
        return self.flush_interval_ms - spread + crc32(nonce.encode()) % (2 * spread + 1)
