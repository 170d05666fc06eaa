"""Which invoice a line is on: Stripe finds a line by its invoice only, and people paste a line's id alone.

Remembered when a line is first shown; a line that nobody has seen here is not found.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from billing.cache.lru import Lru
from billing.redis_reply import reply

PLACE = "line:"  # + line id: STRING, the invoice's id and the customer's
KEPT_SECONDS = 400 * 86_400  # as long as somebody may ask about a bill; a year and a month
REMEMBERED = 20_000


class Place(NamedTuple):
    """Where a line is, and whose it is: who may not see it must not cause a look at the invoice."""

    invoice: str
    customer: str


class LinePlaces:
    """Line id → its place, in a Redis that may forget."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._written: Lru[bool] = Lru(REMEMBERED)

    async def remember(self, invoice: str, customer: str, lines: Sequence[str]) -> None:
        """*lines* are on *invoice*, which is *customer*'s; what this process wrote already is not written again."""
        new = [line for line in lines if self._written.get(line) is None]
        if not new:
            return
        with suppress(RedisError, OSError):
            async with self._redis.pipeline(transaction=False) as pipeline:
                for line in new:
                    pipeline.set(PLACE + line, f"{invoice} {customer}", ex=KEPT_SECONDS)
                await pipeline.execute()
            for line in new:
                self._written.put(line, True, 1)

    async def place_of(self, line: str) -> Place | None:
        """Where *line* is; None when no line of this id was ever shown."""
        try:
            found: bytes | None = await reply(self._redis.get(PLACE + line))
        except (RedisError, OSError):
            return None
        invoice, _, customer = (found or b"").decode().partition(" ")
        return Place(invoice, customer) if customer else None  # an older gateway wrote no customer
