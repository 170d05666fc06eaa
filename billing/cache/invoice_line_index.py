"""Which invoice a line is on: Stripe finds a line by its invoice only, and people paste a line's id alone.

Remembered when a line is shown, in the cache's Redis, which may evict it: a line that nobody has seen here
lately is not found. A place takes about 120 bytes there (the twenty lines of 100,000 customers, each looked
at every month: 0.8 GB when the oldest lapse).
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from billing.cache.lru import Lru
from billing.redis_reply import reply

PLACE = "line:"  # + line id: STRING, the invoice's id and the customer's
REMEMBERED = 20_000
AGAIN_SECONDS = 3_600  # the server may have evicted it
LEFT_ALONE_SECONDS = 5.0  # so that a server that hangs delays one page in a while, not every one


class Place(NamedTuple):
    """Where a line is, and whose it is: who may not see it must not cause a look at the invoice."""

    invoice: str
    customer: str


class LinePlaces:
    """Line id → its place for *kept* seconds, in a Redis that may forget sooner."""

    def __init__(self, redis: Redis, kept: int) -> None:
        self._redis = redis
        self._kept = kept
        self._written: Lru[float] = Lru(REMEMBERED)
        self._left_alone_until = 0.0

    async def remember(self, invoice: str, customer: str, lines: Sequence[str]) -> None:
        """*lines* are on *invoice*, which is *customer*'s; what this process wrote within the hour is not written."""
        now = time.monotonic()
        new = [line for line in lines if (self._written.get(line) or 0.0) <= now]
        if not new or now < self._left_alone_until:
            return
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for line in new:
                    pipeline.set(PLACE + line, f"{invoice} {customer}", ex=self._kept)
                await pipeline.execute()
        except (RedisError, OSError):
            self._left_alone_until = now + LEFT_ALONE_SECONDS
            return
        for line in new:
            self._written.put(line, now + AGAIN_SECONDS, 1)

    async def place_of(self, line: str) -> Place | None:
        """Where *line* is; None when no line of this id was shown lately."""
        try:
            found: bytes | None = await reply(self._redis.get(PLACE + line))
        except (RedisError, OSError):
            return None
        invoice, _, customer = (found or b"").decode().partition(" ")
        return Place(invoice, customer) if customer else None  # an older gateway wrote no customer
