"""Erasures: what was loaded before one is not even the last known value, in Redis or in a process.

The keys are without the server's run id, so that they outlive a failover.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from redis.asyncio import Redis

from billing.cache.redis_backend import CacheUnavailable
from billing.redis_clients import UNREACHABLE, awaited

KEY_PREFIX = "rc:erased:"  # + generation: STRING, seconds since 1970


class Erasures:
    """When the values under a generation were erased; forgotten after *ttl* seconds, like the values."""

    def __init__(self, redis: Redis, ttl: float) -> None:
        self._redis = redis
        self._ttl_ms = max(1, round(ttl * 1000))

    async def add(self, generations: Sequence[str]) -> None:
        """Erase what was loaded under *generations* until now; CacheUnavailable: retry."""
        now = datetime.now(UTC).timestamp()
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for name in generations:
                    pipeline.set(KEY_PREFIX + name, now, px=self._ttl_ms)
                await pipeline.execute()
        except UNREACHABLE as error:
            raise CacheUnavailable from error

    async def is_erased(self, generations: Sequence[str], loaded_at: datetime) -> bool:
        """True if one of *generations* was erased since *loaded_at*; False without Redis, where nobody knows."""
        try:
            found = await awaited(self._redis.mget([KEY_PREFIX + name for name in generations]))
        except UNREACHABLE:
            return False
        return any(at and float(at) >= loaded_at.timestamp() for at in found)
