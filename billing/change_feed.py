"""Change feed: notifies subscribers that something of a customer changed, over Redis pub/sub; never a value.

One connection per process receives for all of its subscribers. Each subscriber buffers one change and the
newest wins, because a change only means "read again". After a lost connection every subscriber gets one
change, because messages may have been missed.
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
from billing.cache.redis_backend import CacheUnavailable

log = structlog.get_logger(__name__)

CHANNEL_PREFIX = "changes:"
ALL_CUSTOMERS = ""  # in place of a customer id: every customer, as for a price
USAGE_INTERVAL_SECONDS = 1.0  # least time between two usage changes, as the contract promises
# Responses are cached for a second at most. The follow-up comes after that, so that it shows later usage.
FOLLOW_UP_SECONDS = USAGE_INTERVAL_SECONDS + 1.0
IDLE_SECONDS = 5.0  # of silence, before the server is pinged
CONFIRM_SECONDS = 1.0  # a subscription that takes longer begins with the next reconnection
MAX_RECONNECT_SECONDS = 1.0  # longest pause between attempts to reconnect


class ChangeReason(StrEnum):
    """Reason of a change, as the contract names it."""

    WEBHOOK = "WEBHOOK"
    SYNC = "SYNC"
    USAGE = "USAGE"
    SUPPORT = "SUPPORT"


@dataclass(frozen=True, slots=True)
class Change:
    """Something of *customer* may have changed: *sync* or *invoice* if one of them alone did."""

    customer: str
    reason: ChangeReason
    sync: str | None = None
    invoice: str | None = None
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


class ChangeStream:
    """The changes of one customer for one subscriber, until the subscription or the process ends.

    Usage is published at most once a second, and not in the second after another change. Therefore a
    usage change follows each change, and the start of the subscription, after two seconds.
    """

    def __init__(self, customer: str) -> None:
        self._customer = customer
        self._newest: Change | None = None
        self._updated = asyncio.Event()
        self._closed = False
        self._usage_allowed_at = -math.inf
        # A change just before this subscription suppresses those of the next second.
        self._follow_up_at: float | None = asyncio.get_running_loop().time() + FOLLOW_UP_SECONDS

    def offer(self, change: Change) -> None:
        """Replace the change that has not been read yet."""
        now = asyncio.get_running_loop().time()
        self._follow_up_at = now + FOLLOW_UP_SECONDS
        if change.reason is not ChangeReason.USAGE or now >= self._usage_allowed_at:
            self._newest = change
        self._updated.set()

    def close(self) -> None:
        """End the stream."""
        self._closed = True
        self._updated.set()

    def __aiter__(self) -> "ChangeStream":
        return self

    async def __anext__(self) -> Change:
        loop = asyncio.get_running_loop()
        while self._newest is None and not self._closed:
            if self._follow_up_at is not None and loop.time() >= self._follow_up_at:
                self._follow_up_at = None
                self._newest = Change(self._customer, ChangeReason.USAGE)
                break
            self._updated.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._follow_up_at):
                    await self._updated.wait()
        if self._closed or self._newest is None:
            raise StopAsyncIteration
        change, self._newest = self._newest, None
        if change.reason is ChangeReason.USAGE:
            self._usage_allowed_at = loop.time() + USAGE_INTERVAL_SECONDS
        return change


@asynccontextmanager
async def open_change_feed(url: str, cache: Cache) -> AsyncIterator["ChangeFeed"]:
    """A change feed over the Redis at *url*, which may be down; *cache* is invalidated with each change."""
    async with Redis.from_url(
        url, socket_connect_timeout=CONFIRM_SECONDS, socket_timeout=5
    ) as redis:
        changes = ChangeFeed(redis, cache)
        try:
            yield changes
        finally:
            await changes.close()


class ChangeFeed:
    """Publishes and delivers changes; neither fails when Redis is unavailable."""

    def __init__(self, redis: Redis, cache: Cache) -> None:
        self._redis = redis
        self._cache = cache
        self._streams: dict[str, set[ChangeStream]] = {}
        self._confirmed: dict[str, asyncio.Event] = {}
        self._connection: AbstractConnection | None = None
        self._listener: asyncio.Task[None] | None = None

    async def publish(self, *changes: Change) -> None:
        """Invalidate these customers' ledger data in the cache, then notify every process.

        Usage changes are published at most once a second. A failure is logged, and clients see the change
        when they next read.
        """
        try:
            await self._publish(await self._invalidate(changes))
        except (RedisError, OSError, CacheUnavailable) as error:
            log.warning("change_feed.unpublished", changes=len(changes), error=type(error).__name__)

    @asynccontextmanager
    async def subscribe(self, customer: str) -> AsyncIterator[ChangeStream]:
        """Subscribe to the changes of *customer*."""
        stream = ChangeStream(customer)
        await self._add_stream(customer, stream)
        try:
            yield stream
        finally:
            await self._remove_stream(customer, stream)

    async def close(self) -> None:
        """End every stream and the listener."""
        for stream in [stream for streams in self._streams.values() for stream in streams]:
            stream.close()
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)

    async def _invalidate(self, changes: Sequence[Change]) -> list[Change]:
        """Invalidate the customers' ledger data; the changes to publish."""
        usage = [change for change in changes if change.reason is ChangeReason.USAGE]
        others = [change for change in changes if change.reason is not ChangeReason.USAGE]
        if others:
            await self._cache.invalidate(*(entries.usage(change.customer) for change in others))
        replaced = await self._cache.invalidate_throttled(
            *(entries.usage(change.customer) for change in usage)
        )
        return others + [change for change in usage if entries.usage(change.customer) in replaced]

    async def _publish(self, changes: Sequence[Change]) -> None:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for change in changes:
                message = {
                    "reason": change.reason,
                    "sync": change.sync,
                    "invoice": change.invoice,
                    "at": change.at,
                }
                pipeline.publish(CHANNEL_PREFIX + change.customer, orjson.dumps(message))
            await pipeline.execute()

    async def _add_stream(self, customer: str, stream: ChangeStream) -> None:
        if self._listener is None:
            self._listener = asyncio.get_running_loop().create_task(self._listen())
        streams = self._streams.setdefault(customer, set())
        streams.add(stream)
        if len(streams) == 1:
            self._confirmed[customer] = asyncio.Event()
            await self._send("SUBSCRIBE", CHANNEL_PREFIX + customer)
        with suppress(TimeoutError):
            async with asyncio.timeout(CONFIRM_SECONDS):
                await self._confirmed[customer].wait()

    async def _remove_stream(self, customer: str, stream: ChangeStream) -> None:
        streams = self._streams[customer]
        streams.discard(stream)
        if not streams:
            del self._streams[customer], self._confirmed[customer]
            await self._send("UNSUBSCRIBE", CHANNEL_PREFIX + customer)

    async def _send(self, *command: str) -> None:
        """Send on the listener's connection; without one, reconnecting subscribes."""
        if self._connection is not None:
            with suppress(RedisError, OSError):
                await self._connection.send_command(*command)

    async def _listen(self) -> None:
        pause = 0.05
        missed = False
        while True:
            connection = self._redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]
            try:
                await self._connect(connection, missed=missed)
                pause = 0.05
                while True:
                    self._dispatch(await _next_message(connection))
            except (RedisError, OSError) as error:
                log.warning("change_feed.disconnected", error=type(error).__name__)
            finally:
                self._connection = None
                await connection.disconnect(nowait=True)
            missed = True
            await asyncio.sleep(pause)
            pause = min(2 * pause, MAX_RECONNECT_SECONDS)

    async def _connect(self, connection: AbstractConnection, *, missed: bool) -> None:
        await connection.connect()  # type: ignore[no-untyped-call]
        self._connection = connection
        # The bare prefix keeps the connection in subscribed mode without subscribers.
        await connection.send_command(
            "SUBSCRIBE",
            CHANNEL_PREFIX,
            *(CHANNEL_PREFIX + customer for customer in self._streams),
        )
        if missed:
            for customer, streams in self._streams.items():
                for stream in streams:
                    stream.offer(Change(customer, ChangeReason.WEBHOOK))

    def _dispatch(self, message: list[Any]) -> None:
        kind, channel, *rest = message
        customer = channel.decode().removeprefix(CHANNEL_PREFIX)
        if kind == b"subscribe" and customer in self._confirmed:
            self._confirmed[customer].set()
        elif kind == b"message":
            for receiver in self._streams if customer == ALL_CUSTOMERS else (customer,):
                for stream in self._streams.get(receiver, ()):
                    stream.offer(_parse_change(receiver, rest[0]))


async def _next_message(connection: AbstractConnection) -> list[Any]:
    for _ in range(2):
        message = await connection.read_response(timeout=IDLE_SECONDS, disconnect_on_error=False)
        if message is not None:
            return list(message)
        await connection.send_command("PING")
    raise TimeoutError


def _parse_change(customer: str, message: bytes) -> Change:
    fields = orjson.loads(message)
    return Change(
        customer,
        ChangeReason(fields["reason"]),
        fields["sync"],
        fields["invoice"],
        datetime.fromisoformat(fields["at"]),
    )
