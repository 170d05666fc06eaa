"""Change feed: notifies subscribers that something of a customer changed, over Redis pub/sub; never a value.

One connection per process receives for all of its subscribers. Each subscriber buffers one change and the newest
wins: a change only means "read again". After a lost connection every subscriber gets one, for missed messages.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
import orjson
import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from billing.cache import Cache, entries
from billing.cache.redis_backend import CacheUnavailable
from billing.change_stream import (
    FOLLOW_UP_SECONDS,
    USAGE_INTERVAL_SECONDS,
    Change,
    ChangeReason,
    ChangeStream,
)
from billing.logs import frames
from billing.redis_clients import UNREACHABLE

__all__ = [
    "FOLLOW_UP_SECONDS",
    "USAGE_INTERVAL_SECONDS",
    "Change",
    "ChangeFeed",
    "ChangeReason",
    "ChangeStream",
    "open_change_feed",
]

log = structlog.get_logger(__name__)

CHANNEL_PREFIX = "changes:"  # + customer
PAYLOAD_FIELDS = ("reason", "sync", "invoice", "at")
ALL_CUSTOMERS = ""  # in place of a customer id: every customer, as for a price
IDLE_SECONDS = 5.0  # of silence, before the server is pinged
CONFIRM_SECONDS = 1.0  # a subscription that takes longer begins with the next reconnection
MIN_RECONNECT_SECONDS, MAX_RECONNECT_SECONDS = 0.05, 1.0  # pauses between attempts


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
        self._send_lock = asyncio.Lock()
        self._sending: set[asyncio.Task[None]] = set()

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
        if self._listener is None or self._listener.done():
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
            await asyncio.gather(self._listener, *self._sending, return_exceptions=True)

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
        """Send on the listener's connection; without one, the listener subscribes when it has one.

        A cancelled caller does not cancel it: redis-py would close the connection of all subscribers.
        """
        sending = asyncio.create_task(self._send_alone(command, customer))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)
        await asyncio.shield(sending)

    async def _send_alone(
        self, command: Callable[[PubSub, str], Awaitable[Any]], customer: str
    ) -> None:
        async with self._send_lock:
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
            except Exception as error:  # noqa: BLE001 whatever ends it, subscribers of this process need it
                log.error("change_feed.fault", fault=type(error).__name__, at=frames(error))  # noqa: TRY400 its text may be secret
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
        customer = (message["channel"] or b"").decode(errors="replace")
        customer = customer.removeprefix(CHANNEL_PREFIX)
        if message["type"] == "message":
            self._offer(customer, message["data"])
        elif message["type"] == "subscribe" and customer in self._confirmed:
            self._confirmed[customer].set()
        elif message["type"] == "subscribe" and customer == ALL_CUSTOMERS:  # a new connection
            if self._may_have_missed:
                for receiver in self._receivers(ALL_CUSTOMERS):
                    self._offer_change(Change(receiver, ChangeReason.REFRESH))
            self._may_have_missed = True
            self._pause = MIN_RECONNECT_SECONDS

    def _receivers(self, customer: str) -> Iterable[str]:
        return self._streams if customer == ALL_CUSTOMERS else (customer,)

    def _offer(self, customer: str, data: bytes) -> None:
        """Offer the change in *data*; where it cannot be read, as of a newer version, a refresh follows."""
        for receiver in self._receivers(customer):
            try:
                self._offer_change(_decode(receiver, data))
            except (ValueError, TypeError) as error:
                log.warning("change_feed.unreadable", error=type(error).__name__)
                for stream in self._streams.get(receiver, ()):
                    stream.follow_up()

    def _offer_change(self, change: Change) -> None:
        for stream in self._streams.get(change.customer, ()):
            stream.offer(change)


def _decode(customer: str, data: bytes) -> Change:
    return msgspec.convert({**orjson.loads(data), "customer": customer}, Change)


async def _next_message(pubsub: PubSub) -> dict[str, Any]:
    """The next message; TimeoutError if the server does not answer a ping."""
    for _ in range(2):
        message: dict[str, Any] | None = await pubsub.get_message(timeout=IDLE_SECONDS)
        if message is not None:
            return message
        await pubsub.ping()
    raise TimeoutError
