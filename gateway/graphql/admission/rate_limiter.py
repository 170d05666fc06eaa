"""Rate limit by query cost: a token bucket per caller in Redis, shared by the gateway's processes.

While Redis does not answer, every bucket counts as full.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from billing.cache.batcher import Batcher
from billing.redis_clients import load_script
from gateway.graphql.admission.best_effort_redis import BestEffortRedis


@dataclass(frozen=True, slots=True)
class ThrottleStatus:
    """A caller's bucket after a charge; *retry_after* seconds when the charge was refused, else 0."""

    maximum: int
    available: int
    restore_rate: int
    retry_after: int = 0


class CostLimiter:
    """Token buckets of query cost with this *capacity*, which regain *rate* a second."""

    def __init__(
        self, redis: BestEffortRedis, *, capacity: int = 20_000, rate: int = 1_000
    ) -> None:
        self._redis = redis
        self._script = load_script(redis.client, "gateway.graphql.admission", "charge")
        self._batcher: Batcher[tuple[str, int, int], tuple[int, int]] = Batcher(self._charge)
        self._capacity = capacity
        self._rate = rate

    async def charge(self, caller: str, cost: int, refund: int = 0) -> ThrottleStatus:
        """Return *refund* to *caller*'s bucket, then take *cost*; one command per event loop iteration."""
        available, wait_ms = await self._batcher.submit((caller, cost, refund))
        return ThrottleStatus(self._capacity, available, self._rate, ceil(wait_ms / 1000))

    async def _charge(self, charges: Sequence[tuple[str, int, int]]) -> Sequence[tuple[int, int]]:
        keys = [f"gw:allowance:{caller}" for caller, _, _ in charges]
        amounts = [amount for _, cost, refund in charges for amount in (cost, refund)]
        replies: Sequence[tuple[int, int]] | None = await self._redis.execute(
            lambda: self._script(keys, [self._capacity, self._rate, *amounts])
        )
        return replies or [(self._capacity, 0)] * len(charges)
