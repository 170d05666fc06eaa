"""Change feed: notifies subscribers that something of a customer changed, over Redis pub/sub; never a value.

One connection per process receives for all of its subscribers. Each subscriber buffers one change and the newest
wins: a change only means "read again". After a lost connection every subscriber gets one, for missed messages.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import msgspec
import orjson
import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from billing.cache import Cache, entries
from billing.cache.redis_backend import CacheUnavailable
from billing.redis_clients import UNREACHABLE

log = structlog.get_logger(__name__)

CHANNEL_PREFIX = "changes:"  # + customer
PAYLOAD_FIELDS = ("reason", "sync", "invoice", "at")
ALL_CUSTOMERS = ""  # in place of a customer id: every customer, as for a price
USAGE_INTERVAL_SECONDS = 1.0  # least time between two usage changes, as the contract promises
# Responses are cached for a second at most. The follow-up comes after that, so that it shows later usage.
FOLLOW_UP_SECONDS = USAGE_INTERVAL_SECONDS + 1.0
IDLE_SECONDS = 5.0  # of silence, before the server is pinged
CONFIRM_SECONDS = 1.0  # a subscription that takes longer begins with the next reconnection
MIN_RECONNECT_SECONDS, MAX_RECONNECT_SECONDS = 0.05, 1.0  # pauses between attempts


class ChangeReason(StrEnum):
    """Reason of a change, as the contract names it."""

    WEBHOOK = "WEBHOOK"
    SYNC = "SYNC"
    USAGE = "USAGE"
    SUPPORT = "SUPPORT"
    REFRESH = "REFRESH"  # never published: offered where a subscriber may have missed a change


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

    Usage is published at most once a second, and not in the second after another change. Therefore a refresh
    follows each change, and the start of the subscription, after two seconds.
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
                self._newest = Change(self._customer, ChangeReason.REFRESH)
                break
            self._updated.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._follow_up_at):
                    await self._updated.wait()
        if self._closed or self._newest is None:
            raise StopAsyncIteration
        change, self._newest = self._newest, None
        if change.reason in (ChangeReason.USAGE, ChangeReason.REFRESH):
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
        self._pubsub: PubSub | None = None
        self._may_have_missed = False
        self._pause = MIN_RECONNECT_SECONDS
        self._listener: asyncio.Task[None] | None = None

    async def publish(self, *changes: Change) -> None:
        """Invalidate these customers' ledger data in the cache, then notify every process.

        Usage changes are published at most once a second. A failure is logged, and clients see the change
        when they next read.
        """
        try:
            await self._publish(await self._invalidate(changes))
        except (*UNREACHABLE, CacheUnavailable) as error:
            log.warning("change_feed.unpublished", changes=len(changes), error=type(error).__name__)

    @asynccontextmanager
    async def subscribe(self, customer: str) -> AsyncIterator[ChangeStream]:
        """Subscribe to the changes of *customer*."""
        stream = ChangeStream(customer)
        streams = self._streams.setdefault(customer, set())
        streams.add(stream)
        if self._listener is None:
            self._listener = asyncio.get_running_loop().create_task(self._listen())
        try:
            if len(streams) == 1:
                self._confirmed[customer] = asyncio.Event()
                await self._send(PubSub.subscribe, customer)
            with suppress(TimeoutError):
                async with asyncio.timeout(CONFIRM_SECONDS):
                    await self._confirmed[customer].wait()
            yield stream
        finally:
            streams.discard(stream)
            if not streams:
                del self._streams[customer], self._confirmed[customer]
                await self._send(PubSub.unsubscribe, customer)

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
        generations = [entries.usage(change.customer) for change in usage]
        replaced = await self._cache.invalidate_throttled(*generations)
        return others + [change for change in usage if entries.usage(change.customer) in replaced]

    async def _publish(self, changes: Sequence[Change]) -> None:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for change in changes:
                payload = {name: getattr(change, name) for name in PAYLOAD_FIELDS}
                pipeline.publish(CHANNEL_PREFIX + change.customer, orjson.dumps(payload))
            await pipeline.execute()

    async def _send(self, command: Callable[[PubSub, str], Awaitable[Any]], customer: str) -> None:
        """Send on the listener's connection; without one, the listener subscribes when it has one."""
        if self._pubsub is not None:
            with suppress(*UNREACHABLE):
                await command(self._pubsub, CHANNEL_PREFIX + customer)

    async def _listen(self) -> None:
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    await self._receive(pubsub)
            except UNREACHABLE as error:
                log.warning("change_feed.disconnected", error=type(error).__name__)
            self._may_have_missed = True
            await asyncio.sleep(self._pause)
            self._pause = min(2 * self._pause, MAX_RECONNECT_SECONDS)

    async def _receive(self, pubsub: PubSub) -> None:
        await pubsub.connect()  # type: ignore[no-untyped-call]
        self._pubsub = pubsub
        try:
            # The bare prefix keeps the connection in subscribed mode without subscribers.
            channels = [CHANNEL_PREFIX + customer for customer in self._streams]
            await pubsub.subscribe(CHANNEL_PREFIX, *channels)
            while True:
                self._dispatch(await _next_message(pubsub))
        finally:
            self._pubsub = None

    def _dispatch(self, message: dict[str, Any]) -> None:
        customer = (message["channel"] or b"").decode().removeprefix(CHANNEL_PREFIX)
        if message["type"] == "message":
            self._offer(customer, **orjson.loads(message["data"]))
        elif message["type"] == "subscribe" and customer in self._confirmed:
            self._confirmed[customer].set()
        elif message["type"] == "subscribe" and customer == ALL_CUSTOMERS:  # a new connection
            if self._may_have_missed:
                self._offer(ALL_CUSTOMERS, reason=ChangeReason.REFRESH)
            self._may_have_missed = True
            self._pause = MIN_RECONNECT_SECONDS

    def _offer(self, customer: str, **payload: Any) -> None:
        for receiver in self._streams if customer == ALL_CUSTOMERS else (customer,):
            change = msgspec.convert({"customer": receiver, **payload}, Change)
            for stream in self._streams.get(receiver, ()):
                stream.offer(change)


async def _next_message(pubsub: PubSub) -> dict[str, Any]:
    """The next message; TimeoutError if the server does not answer a ping."""
    for _ in range(2):
        message: dict[str, Any] | None = await pubsub.get_message(timeout=IDLE_SECONDS)
        if message is not None:
            return message
        await pubsub.ping()
    raise TimeoutError
