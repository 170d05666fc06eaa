"""Who looks at a customer hears that something changed: pub/sub over the cache's Redis, never a value.

One connection per process listens for all of its subscribers. Each has room for one change, the newest
wins: whoever hears of a change reads everything again. After a lost connection everybody is told once,
because nobody knows what was missed.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import orjson
import structlog
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from billing.cache import Cache, entries
from billing.cache.redis_backend import CacheGone

log = structlog.get_logger(__name__)

PREFIX = "changes:"
EVERYBODY = ""  # in the place of a customer: all of them, as for a price
USAGE_SPACING = 1.0  # seconds between two changes of usage, as the contract promises
# What came since is told once no answer is kept any more that was made before its end: those last a second too.
REPEAT_SECONDS = USAGE_SPACING + 1.0
IDLE_SECONDS = 5.0  # of silence, after which the server has to show that it lives
CONFIRM_SECONDS = 1.0  # a subscription that takes longer begins with the next reconnection
LONGEST_PAUSE = 1.0  # seconds between attempts to reconnect


class ChangeReason(StrEnum):
    """Why a panel may have changed, as the contract names it."""

    WEBHOOK = "WEBHOOK"
    SYNC = "SYNC"
    USAGE = "USAGE"
    SUPPORT = "SUPPORT"


@dataclass(frozen=True, slots=True)
class Change:
    """Something of *customer* may look different now; *sync* and *invoice* say what, when one thing does."""

    customer: str
    reason: ChangeReason
    sync: str | None = None
    invoice: str | None = None
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


class ChangeStream:
    """The changes of one customer for one subscriber, until the subscription or the process ends.

    Usage is announced at most once a second, and not at all in the second after any change was; so
    each change, and the subscription's beginning, is followed two seconds later by one for what came since.
    """

    def __init__(self, customer: str) -> None:
        self._customer = customer
        self._newest: Change | None = None
        self._woken = asyncio.Event()
        self._closed = False
        self._usage_from = -math.inf
        # Somebody else may just have been told, and nobody is again within the second.
        self._repeat_at: float | None = asyncio.get_running_loop().time() + REPEAT_SECONDS

    def put(self, change: Change) -> None:
        """Replace what has not been read yet."""
        now = asyncio.get_running_loop().time()
        self._repeat_at = now + REPEAT_SECONDS
        if change.reason is not ChangeReason.USAGE or now >= self._usage_from:
            self._newest = change
        self._woken.set()

    def close(self) -> None:
        """End the stream."""
        self._closed = True
        self._woken.set()

    def __aiter__(self) -> "ChangeStream":
        return self

    async def __anext__(self) -> Change:
        loop = asyncio.get_running_loop()
        while self._newest is None and not self._closed:
            if self._repeat_at is not None and loop.time() >= self._repeat_at:
                self._repeat_at = None
                self._newest = Change(self._customer, ChangeReason.USAGE)
                break
            self._woken.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._repeat_at):
                    await self._woken.wait()
        if self._closed or self._newest is None:
            raise StopAsyncIteration
        change, self._newest = self._newest, None
        if change.reason is ChangeReason.USAGE:
            self._usage_from = loop.time() + USAGE_SPACING
        return change


@asynccontextmanager
async def open_changes(url: str, cache: Cache) -> AsyncIterator["Changes"]:
    """Changes over the Redis at *url*, which may be down now and come later; *cache* forgets with them."""
    async with Redis.from_url(
        url, socket_connect_timeout=CONFIRM_SECONDS, socket_timeout=5
    ) as redis:
        changes = Changes(redis, cache)
        try:
            yield changes
        finally:
            await changes.close()


class Changes:
    """Announce changes, and listen to them; neither ever fails for want of Redis."""

    def __init__(self, redis: Redis, cache: Cache) -> None:
        self._redis = redis
        self._cache = cache
        self._streams: dict[str, set[ChangeStream]] = {}
        self._confirmed: dict[str, asyncio.Event] = {}
        self._connection: AbstractConnection | None = None
        self._listening: asyncio.Task[None] | None = None

    async def publish(self, *changes: Change) -> None:
        """Tell every process, after what the cache knows of these customers' ledgers was forgotten.

        Usage is told of at most once a second. What cannot be told is logged, and seen at the next look.
        """
        try:
            await self._publish(await self._forget(changes))
        except (RedisError, OSError, CacheGone) as error:
            log.warning("changes.unpublished", changes=len(changes), error=type(error).__name__)

    @asynccontextmanager
    async def subscribe(self, customer: str) -> AsyncIterator[ChangeStream]:
        """Every change of *customer* that is published from here on."""
        stream = ChangeStream(customer)
        await self._join(customer, stream)
        try:
            yield stream
        finally:
            await self._leave(customer, stream)

    async def close(self) -> None:
        """End every stream and the listening."""
        for stream in [stream for streams in self._streams.values() for stream in streams]:
            stream.close()
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)

    async def _forget(self, changes: Sequence[Change]) -> list[Change]:
        """Those of *changes* that are to be told."""
        usage = [each for each in changes if each.reason is ChangeReason.USAGE]
        others = [each for each in changes if each.reason is not ChangeReason.USAGE]
        if others:
            await self._cache.forget(*(entries.usage(each.customer) for each in others))
        moved = await self._cache.touch(*(entries.usage(each.customer) for each in usage))
        return others + [each for each in usage if entries.usage(each.customer) in moved]

    async def _publish(self, changes: Sequence[Change]) -> None:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for each in changes:
                message = {
                    "reason": each.reason,
                    "sync": each.sync,
                    "invoice": each.invoice,
                    "at": each.at,
                }
                pipeline.publish(PREFIX + each.customer, orjson.dumps(message))
            await pipeline.execute()

    async def _join(self, customer: str, stream: ChangeStream) -> None:
        if self._listening is None:
            self._listening = asyncio.get_running_loop().create_task(self._listen())
        streams = self._streams.setdefault(customer, set())
        streams.add(stream)
        if len(streams) == 1:
            self._confirmed[customer] = asyncio.Event()
            await self._say("SUBSCRIBE", PREFIX + customer)
        with suppress(TimeoutError):
            async with asyncio.timeout(CONFIRM_SECONDS):
                await self._confirmed[customer].wait()

    async def _leave(self, customer: str, stream: ChangeStream) -> None:
        streams = self._streams[customer]
        streams.discard(stream)
        if not streams:
            del self._streams[customer], self._confirmed[customer]
            await self._say("UNSUBSCRIBE", PREFIX + customer)

    async def _say(self, *command: str) -> None:
        """Send on the listening connection; without one, reconnecting will say it."""
        if self._connection is not None:
            with suppress(RedisError, OSError):
                await self._connection.send_command(*command)

    async def _listen(self) -> None:
        pause = 0.05
        missed = False
        while True:
            connection = self._redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]
            try:
                await self._begin(connection, missed=missed)
                pause = 0.05
                while True:
                    self._hear(await _next_message(connection))
            except (RedisError, OSError) as error:
                log.warning("changes.lost", error=type(error).__name__)
            finally:
                self._connection = None
                await connection.disconnect(nowait=True)
            missed = True
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _begin(self, connection: AbstractConnection, *, missed: bool) -> None:
        await connection.connect()  # type: ignore[no-untyped-call]
        self._connection = connection
        # The bare prefix keeps the connection subscribed while nobody is.
        await connection.send_command(
            "SUBSCRIBE", PREFIX, *(PREFIX + each for each in self._streams)
        )
        if missed:
            for customer, streams in self._streams.items():
                for stream in streams:
                    stream.put(Change(customer, ChangeReason.WEBHOOK))

    def _hear(self, message: list[Any]) -> None:
        kind, channel, *rest = message
        customer = channel.decode().removeprefix(PREFIX)
        if kind == b"subscribe" and customer in self._confirmed:
            self._confirmed[customer].set()
        elif kind == b"message":
            told = self._streams if customer == EVERYBODY else {customer}
            for each in told:
                for stream in self._streams.get(each, ()):
                    stream.put(_change(each, rest[0]))


async def _next_message(connection: AbstractConnection) -> list[Any]:
    for _ in range(2):
        message = await connection.read_response(timeout=IDLE_SECONDS, disconnect_on_error=False)
        if message is not None:
            return list(message)
        await connection.send_command("PING")
    raise TimeoutError


def _change(customer: str, message: bytes) -> Change:
    told = orjson.loads(message)
    return Change(
        customer,
        ChangeReason(told["reason"]),
        told["sync"],
        told["invoice"],
        datetime.fromisoformat(told["at"]),
    )
