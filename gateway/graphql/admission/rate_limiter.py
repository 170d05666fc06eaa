"""Rate limit by query cost: a token bucket per caller in Redis, shared by the gateway's processes.

While Redis does not answer, every bucket counts as full.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from billing.cache.batcher import Batcher
from gateway.graphql.admission.best_effort_redis import BestEffortRedis

# One charge a key, each after its refund. Times are Redis's own, in milliseconds. A bucket that has
# refilled needs no state, so its key expires then.
_CHARGE = """
local capacity, rate = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local replies = {}
for k, key in ipairs(KEYS) do
    local cost, refund = tonumber(ARGV[2 * k + 1]), tonumber(ARGV[2 * k + 2])
    local bucket = redis.call('HMGET', key, 'available', 'at')
    local since = now - (tonumber(bucket[2]) or now)
    local available = math.min(capacity, (tonumber(bucket[1]) or capacity) + refund + since * rate / 1000)
    local wait = math.max(0, cost - available) / rate * 1000
    if wait == 0 then available = available - cost end
    redis.call('HSET', key, 'available', available, 'at', now)
    redis.call('PEXPIRE', key, math.ceil((capacity - available) / rate * 1000) + 1)
    replies[k] = {math.floor(available), math.ceil(wait)}
end
return replies
"""


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
        self._script = redis.client.register_script(_CHARGE)
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
