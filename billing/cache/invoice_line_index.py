"""Maps line id to invoice id, because Stripe cannot look up a line by its id alone.

A line is added when it is shown, to the cache's Redis, which may evict it: only lines shown recently are
found. One takes about 120 bytes there; twenty lines of 100,000 customers, each shown every month, are
0.8 GB when the oldest expire.
"""

from collections.abc import Sequence
from typing import NamedTuple

from cachetools import TTLCache
from redis.asyncio import Redis

from billing.redis_clients import UNREACHABLE, Cooldown, awaited

KEY_PREFIX = "line:"  # + line id: STRING, the invoice's id and the customer's
MAX_REMEMBERED = 20_000
REWRITE_SECONDS = 3_600  # the server may have evicted it
COOLDOWN_SECONDS = 5.0


class LineLocation(NamedTuple):
    """The invoice of a line, and its customer, for the permission check before the invoice is read."""

    invoice: str
    customer: str


class InvoiceLineIndex:
    """Line id → location, for *ttl* seconds unless Redis evicts it earlier."""

    def __init__(self, redis: Redis, ttl: int) -> None:
        self._redis = redis
        self._ttl = ttl
        self._written: TTLCache[str, None] = TTLCache(MAX_REMEMBERED, REWRITE_SECONDS)
        self._cooldown = Cooldown(COOLDOWN_SECONDS)

    async def add(self, invoice: str, customer: str, lines: Sequence[str]) -> None:
        """Add *lines* of *invoice*, except those that this process wrote within the hour."""
        new = [line for line in lines if line not in self._written]
        if not new or self._cooldown.active:
            return
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for line in new:
                    pipeline.set(KEY_PREFIX + line, f"{invoice} {customer}", ex=self._ttl)
                await pipeline.execute()
        except UNREACHABLE:
            self._cooldown.start()
            return
        self._written.update(dict.fromkeys(new))

    async def find(self, line: str) -> LineLocation | None:
        """The location of *line*; None if no line of this id was shown recently."""
        try:
            value: bytes | None = await awaited(self._redis.get(KEY_PREFIX + line))
        except UNREACHABLE:
            return None
        invoice, _, customer = (value or b"").decode().partition(" ")
        # An older gateway stored no customer.
        return LineLocation(invoice, customer) if customer else None
