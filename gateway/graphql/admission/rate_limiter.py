"""What the gateway's processes share, in the cache's Redis: allowances and persisted documents.

All of it may vanish. While Redis does not answer, everybody's allowance is full and every hash is
unknown, which clients answer with the document's text.
"""

import time
from collections.abc import Callable, Sequence
from math import ceil
from typing import Any, Self

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from billing.cache.batcher import Tick
from billing.redis_reply import reply
from gateway.graphql.admission.admission import Allowance

log = structlog.get_logger()

DAY = 86_400
# So that a server that does not answer costs one request in a while, and not every one.
REST = 5.0

# Buckets that refill by themselves, each asked for its cost after its refund. Times are Redis's own, in
# milliseconds; nothing is stored that the passing of time would not restore, so a full bucket's key
# has expired.
_SPEND = """
local capacity, rate = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local answers = {}
for k, key in ipairs(KEYS) do
    local cost, refund = tonumber(ARGV[2 * k + 1]), tonumber(ARGV[2 * k + 2])
    local held = redis.call('HMGET', key, 'available', 'at')
    local since = now - (tonumber(held[2]) or now)
    local available = math.min(capacity, (tonumber(held[1]) or capacity) + refund + since * rate / 1000)
    local wait = math.max(0, cost - available) / rate * 1000
    if wait == 0 then available = available - cost end
    redis.call('HSET', key, 'available', available, 'at', now)
    redis.call('PEXPIRE', key, math.ceil((capacity - available) / rate * 1000) + 1)
    answers[k] = {math.floor(available), math.ceil(wait)}
end
return answers
"""


class EdgeStore:
    """One *redis* for all processes; buckets hold *capacity* and regain *rate* a second."""

    def __init__(self, redis: Redis, *, capacity: int = 20_000, rate: int = 1_000) -> None:
        self._redis = redis
        self._script = redis.register_script(_SPEND)
        self._spending: Tick[tuple[str, int, int], tuple[int, int]] = Tick(self._spend)
        self._capacity = capacity
        self._rate = rate
        self._rest_until = 0.0

    @classmethod
    def open(cls, url: str) -> Self:
        """The store in the Redis at *url*, which may be down now and come later; ``close`` it in the end."""
        return cls(Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1))

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def spend(self, bucket: str, cost: int, refund: int = 0) -> Allowance:
        """Take *cost* from *bucket*, after giving *refund* back; one command for a loop tick."""
        available, wait = await self._spending.ask((bucket, cost, refund))
        return Allowance(self._capacity, available, self._rate, ceil(wait / 1000))

    async def document(self, sha: str) -> str | None:
        """The persisted document of *sha*, whose day begins anew."""
        text = await self._asked(lambda: self._redis.getex(f"gw:document:{sha}", ex=DAY))
        return None if text is None else text.decode()

    async def keep_document(self, sha: str, text: str) -> None:
        """Keep *text* under its *sha* for a day."""
        await self._asked(lambda: self._redis.set(f"gw:document:{sha}", text, ex=DAY))

    async def _spend(self, asked: Sequence[tuple[str, int, int]]) -> Sequence[tuple[int, int]]:
        keys = [f"gw:allowance:{bucket}" for bucket, _, _ in asked]
        costs = [number for _, cost, refund in asked for number in (cost, refund)]
        answers: Sequence[tuple[int, int]] | None = await self._asked(
            lambda: self._script(keys, [self._capacity, self._rate, *costs])
        )
        return answers or [(self._capacity, 0)] * len(asked)

    async def _asked(self, command: Callable[[], Any]) -> Any:
        """What Redis answers; None without asking for `REST` seconds after it failed to."""
        if time.monotonic() < self._rest_until:
            return None
        try:
            return await reply(command())
        except RedisError as error:
            self._rest_until = time.monotonic() + REST
            log.warning("edge_store.unreachable", fault=type(error).__name__)
            return None
