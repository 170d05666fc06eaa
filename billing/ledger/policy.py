"""Settings of the ledger that an operator chooses."""

from dataclasses import dataclass
from typing import NamedTuple
from zlib import crc32

DAY_MS = 86_400_000
ID_RETENTION_MS = 42 * DAY_MS
"""A delta's id is remembered for at least this long after its arrival; ``record.lua`` has the same constant."""
RECOVERY_WINDOW_MS = 45 * DAY_MS
"""The ledger still has every period that ended within this window, sealed ones included."""


class ReplicaAck(NamedTuple):
    """The number of replicas that must have a write before it is acknowledged, and the timeout."""

    replicas: int
    timeout_ms: int


@dataclass(frozen=True, slots=True)
class LedgerPolicy:
    """Times are in ms. Recorded usage is flushed after *flush_interval_ms*, plus or minus *flush_jitter*.

    A month without usage can begin until *settle_ms* after its end; usage that arrives later is
    late. A sealed period is retained for *retention_ms*, and *sync_history* syncs are remembered
    per customer. After the server was replaced no period is closed for *replay_window_ms*, while
    producers resend what it may have lost. An abandoned request may still reach Stripe for
    *quiet_ms*. With *replicas*, usage and the actions of Support are acknowledged once that many
    replicas have them, or refused after *replica_wait_ms*; this is for a single server with
    replicas, not for a cluster.
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
        if self.usage_max_age_ms + self.usage_max_future_ms > ID_RETENTION_MS:
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
    def replica_ack(self) -> ReplicaAck | None:
        """The replica acknowledgement to wait for; None without replicas."""
        return ReplicaAck(self.replicas, self.replica_wait_ms) if self.replicas else None

    def interval(self, nonce: str) -> int:
        """Return the flush interval with jitter, so that customers' flushes spread out."""
        spread = int(self.flush_interval_ms * self.flush_jitter)
        return self.flush_interval_ms - spread + crc32(nonce.encode()) % (2 * spread + 1)
