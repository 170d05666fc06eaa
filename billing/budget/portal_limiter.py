"""Limit of portal sessions: so many that one party may open for a customer in a minute, over all processes."""

import time

from redis.asyncio import Redis

from billing.budget.state import TAG
from billing.errors import ShareUsed
from billing.redis_clients import UNREACHABLE

MINUTE = 60


class PortalLimiter:
    """Counts sessions in *redis*, minute by minute; without Redis only Stripe's budget limits them."""

    def __init__(self, redis: Redis, per_minute: int) -> None:
        self._redis = redis
        self._per_minute = per_minute

    async def count(self, customer: str, caller: str) -> None:
        """Count one more session; ShareUsed, with the rest of the minute, if there were enough."""
        minute, past = divmod(time.time(), MINUTE)
        key = f"{TAG}portal:{customer}:{caller}:{minute:.0f}"
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.incr(key)
                pipe.expire(key, 2 * MINUTE)
                sessions, _ = await pipe.execute()
        except UNREACHABLE:
            return
        if sessions > self._per_minute:
            raise ShareUsed(
                f"At most {self._per_minute} portal sessions a minute are opened for a customer; use the last link.",
                retry_after=MINUTE - past,
            )
