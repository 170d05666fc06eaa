"""Syncs: asked for, run, retried, finished; each says what became of its own flush."""

from decimal import Decimal

import pytest
from redis.asyncio import Redis

from billing.invoicing.snapshot import StripeLine
from billing.ledger import Held, Ledger, LedgerPolicy, keys
from billing.ledger.syncs import Sync, SyncFailure, SyncOutcome, Syncs, SyncStatus
from billing.usage import CustomerId, LineKey
from tests.support.ledger import (
    CUSTOMER,
    DECEMBER,
    NOVEMBER,
    OTHER,
    Clock,
    delta,
    open_ledger,
    outcomes,
)

DONE = SyncOutcome(
    SyncStatus.SUCCEEDED, lines_added=2, lines_updated=1, stripe_calls=3, invoice="in_1"
)
BUSY = SyncOutcome(
    SyncStatus.RETRYING, stripe_calls=1, failure=SyncFailure("lock_timeout", "Later.", "req_1")
)


@pytest.fixture
def clock() -> Clock:
    """The middle of November 2026."""
    return Clock()


@pytest.fixture
async def ledger(redis: Redis, clock: Clock) -> Ledger:
    """A ledger with two deltas waiting."""
    ledger = await open_ledger(redis, clock)
    await outcomes(ledger, delta("a"), delta("b"))
    return ledger


@pytest.fixture
def syncs(redis: Redis) -> Syncs:
    """The record of syncs."""
    return Syncs(redis)


async def taken(ledger: Ledger) -> Held:
    """The lease of November."""
    held = await ledger.acquire(CUSTOMER, NOVEMBER)
    assert held is not None
    return held


async def tell(ledger: Ledger, held: Held) -> None:
    """Commit all that *held* shows."""
    snapshot = held.snapshot
    line = StripeLine("il_1", Decimal(2), "price_cpu", 1)
    await ledger.commit(
        held.lease,
        version=snapshot.version,
        verify=snapshot.verify_requested,
        invoice="in_1",
        lines={LineKey("cpu"): line},
    )


async def found(syncs: Syncs, sync: Sync) -> Sync:
    """*sync* as it stands now."""
    now = await syncs.get(sync.id)
    assert now is not None
    return now


async def test_a_request_waits_and_is_joined_by_the_next(
    ledger: Ledger, syncs: Syncs, clock: Clock
) -> None:
    """Twenty clicks are one sync, due within a second."""
    sync, joined = await ledger.request_sync(CUSTOMER, "ON_DEMAND", by="ann")
    again, joined_too = await ledger.request_sync(CUSTOMER, "PORTAL")

    assert (joined, joined_too, again) == (False, True, sync)
    assert sync.status is SyncStatus.QUEUED
    assert (sync.id, sync.trigger, sync.by, sync.requested_ms) == (
        "sync_Test1_1",
        "ON_DEMAND",
        "ann",
        clock(),
    )
    assert await ledger.due_ms(CUSTOMER, NOVEMBER) == clock() + 1_000


async def test_a_sync_tells_its_story(ledger: Ledger, syncs: Syncs, clock: Clock) -> None:
    """Waiting, running, retried, done: with every count added up over its runs."""
    sync, _ = await ledger.request_sync(CUSTOMER, "ON_DEMAND")
    clock.pass_(seconds=1)
    started = clock()
    held = await taken(ledger)
    running = await found(syncs, sync)
    await ledger.release(held.lease, delay_ms=5_000, sync=BUSY)
    retrying = await found(syncs, sync)
    clock.pass_(seconds=5)
    held = await taken(ledger)
    await tell(ledger, held)
    await ledger.release(held.lease, sync=DONE)
    done = await found(syncs, sync)

    assert (running.status, running.started_ms, running.attempts) == (
        SyncStatus.RUNNING,
        started,
        1,
    )
    assert (retrying.status, retrying.next_attempt_ms) == (SyncStatus.RETRYING, started + 5_000)
    assert retrying.failure == BUSY.failure
    assert (done.status, done.started_ms, done.finished_ms) == (
        SyncStatus.SUCCEEDED,
        started,
        clock(),
    )
    assert (done.lines_added, done.lines_updated, done.lines_removed) == (2, 1, 0)
    assert (done.stripe_calls, done.attempts, done.deltas, done.invoice) == (4, 2, 2, "in_1")
    assert (done.failure, done.next_attempt_ms) == (None, None)


async def test_a_request_during_a_run_waits_for_the_next(
    ledger: Ledger, syncs: Syncs, clock: Clock
) -> None:
    """The run may have read the ledger before it; so it is due at once when the run ends."""
    first, _ = await ledger.request_sync(CUSTOMER, "ON_DEMAND")
    held = await taken(ledger)
    second, joined = await ledger.request_sync(CUSTOMER, "SUPPORT")
    await tell(ledger, held)
    await ledger.release(held.lease, sync=DONE)

    assert (joined, second.id) == (False, "sync_Test1_2")
    assert (await found(syncs, first)).status is SyncStatus.SUCCEEDED
    assert (await found(syncs, second)).status is SyncStatus.QUEUED
    assert await ledger.due_ms(CUSTOMER, NOVEMBER) == clock()

    held = await taken(ledger)
    await ledger.release(held.lease)
    assert (await found(syncs, second)).status is SyncStatus.SUCCEEDED
    assert await ledger.due_ms(CUSTOMER, NOVEMBER) is None


async def test_a_retried_sync_is_joined(ledger: Ledger, clock: Clock) -> None:
    """It waits, so a click pulls it forward instead of making another."""
    first, _ = await ledger.request_sync(CUSTOMER, "ON_DEMAND")
    held = await taken(ledger)
    await ledger.release(held.lease, delay_ms=60_000, sync=BUSY)

    again, joined = await ledger.request_sync(CUSTOMER, "ON_DEMAND")

    assert (again.id, joined) == (first.id, True)
    assert await ledger.due_ms(CUSTOMER, NOVEMBER) == clock() + 1_000


async def test_a_sync_survives_its_worker(ledger: Ledger, syncs: Syncs, clock: Clock) -> None:
    """The next worker goes on with it."""
    sync, _ = await ledger.request_sync(CUSTOMER, "ON_DEMAND")
    await taken(ledger)
    clock.pass_(minutes=2)
    held = await taken(ledger)
    await tell(ledger, held)
    await ledger.release(held.lease, sync=DONE)

    done = await found(syncs, sync)
    assert (done.status, done.attempts) == (SyncStatus.SUCCEEDED, 2)


async def test_a_sync_is_ended_though_its_worker_died_with_nothing_left_to_tell(
    ledger: Ledger, syncs: Syncs, clock: Clock
) -> None:
    """Stripe knows everything, but whoever asked would see it run until somebody uses something."""
    sync, _ = await ledger.request_sync(CUSTOMER, "ON_DEMAND")
    await tell(ledger, await taken(ledger))
    assert await ledger.due_ms(CUSTOMER, NOVEMBER) is not None
    clock.pass_(minutes=2)
    held = await taken(ledger)
    await ledger.release(held.lease, sync=DONE)

    assert (await found(syncs, sync)).status is SyncStatus.SUCCEEDED
    assert await ledger.due_ms(CUSTOMER, NOVEMBER) is None


async def test_a_flush_that_is_tried_again_is_not_one_that_somebody_asked_for(
    ledger: Ledger, clock: Clock
) -> None:
    """Or all usage would go in the customers' lane as soon as Stripe has a bad minute."""
    shard = keys.shard_of(CUSTOMER)
    held = await taken(ledger)
    await ledger.release(held.lease, delay_ms=60_000, sync=BUSY)
    clock.pass_(minutes=1)
    retried = await taken(ledger)
    await ledger.release(retried.lease, delay_ms=60_000, sync=BUSY)
    await ledger.request_sync(CUSTOMER, "ON_DEMAND")
    clock.pass_(seconds=1)
    claimed = await ledger.claim_first(shard, 10, 30_000)
    asked = await taken(ledger)

    assert (retried.snapshot.asked, asked.snapshot.asked) == (False, True)
    assert claimed == [(CUSTOMER, NOVEMBER)]


async def test_a_flush_in_its_turn_is_a_sync_only_if_it_changed_something(
    ledger: Ledger, syncs: Syncs
) -> None:
    """Looking and finding nothing is not worth a line in Support's list."""
    held = await taken(ledger)
    await ledger.release(held.lease, sync=SyncOutcome(SyncStatus.SUCCEEDED, stripe_calls=1))
    assert await syncs.of(CUSTOMER) is None

    held = await taken(ledger)
    await tell(ledger, held)
    await ledger.release(held.lease, sync=DONE)

    made = await syncs.of(CUSTOMER)
    assert made is not None
    assert (made.trigger, made.status, made.deltas, made.attempts, made.by) == (
        "INTERVAL",
        "SUCCEEDED",
        2,
        1,
        None,
    )
    assert made.started_ms is not None


async def test_a_sync_in_its_turn_took_as_long_as_its_flush(
    ledger: Ledger, syncs: Syncs, clock: Clock
) -> None:
    """It is written down at the end, and began when a worker took it up; tried again, with its first run."""
    began = clock()
    held = await taken(ledger)
    clock.pass_(seconds=3)
    await ledger.release(held.lease, delay_ms=5_000, sync=BUSY)
    clock.pass_(seconds=5)
    held = await taken(ledger)
    clock.pass_(seconds=2)
    await tell(ledger, held)
    await ledger.release(held.lease, sync=DONE)

    made = await syncs.of(CUSTOMER)
    assert made is not None
    assert (made.trigger, made.attempts) == ("INTERVAL", 2)
    assert (made.requested_ms, made.started_ms, made.finished_ms) == (began, began, clock())
    assert clock() - began == 10_000


async def test_a_parked_sync_has_failed(ledger: Ledger, syncs: Syncs) -> None:
    """With the sentence that helps, and what it had done before."""
    sync, _ = await ledger.request_sync(CUSTOMER, "ON_DEMAND")
    held = await taken(ledger)
    await ledger.park(held.lease, SyncFailure("price_archived", "Unarchive the price."), DONE)

    failed = await found(syncs, sync)
    assert (failed.status, failed.stripe_calls) == (SyncStatus.FAILED, 3)
    assert failed.failure == SyncFailure("price_archived", "Unarchive the price.", None)


async def test_sealing_ends_every_sync_of_the_period(ledger: Ledger, syncs: Syncs) -> None:
    """Nothing will run there again."""
    first, _ = await ledger.request_sync(CUSTOMER, "ON_DEMAND")
    held = await taken(ledger)
    second, _ = await ledger.request_sync(CUSTOMER, "ON_DEMAND")
    await ledger.close(CUSTOMER, NOVEMBER)
    assert await ledger.seal(held.lease, version=held.snapshot.version, residuals={})
    await ledger.release(held.lease, sync=DONE)

    states = [each and each.status for each in await syncs.many([first.id, second.id])]
    assert states == [SyncStatus.SUCCEEDED, SyncStatus.SUCCEEDED]
    third, joined = await ledger.request_sync(CUSTOMER, "ON_DEMAND")
    assert (third.period, joined) == (DECEMBER, False)


async def test_syncs_are_paged_newest_first_over_all_customers(
    ledger: Ledger, syncs: Syncs, clock: Clock
) -> None:
    """By status and by customer as well; ids are told apart within a millisecond."""
    for n in range(6):
        await finished(ledger, CUSTOMER)
        await finished(ledger, OTHER)
        clock.pass_(milliseconds=n // 3)
    waiting, _ = await ledger.request_sync(OTHER, "SUPPORT")

    page = await syncs.page(5)
    paged = list(page.items)
    while page.has_more:
        page = await syncs.page(5, paged[-1].id)
        paged += page.items
    assert len(paged) == len({each.id for each in paged}) == 13
    assert paged == sorted(paged, key=lambda each: (each.requested_ms, each.id), reverse=True)

    assert (await syncs.page(5, status=SyncStatus.QUEUED)).items == (waiting,)
    first = await syncs.page(4, customer=CUSTOMER, status=SyncStatus.SUCCEEDED)
    second = await syncs.page(4, first.items[-1].id, customer=CUSTOMER)
    numbers = [each.id for each in (*first.items, *second.items)]
    assert numbers == [f"sync_Test1_{n}" for n in (6, 5, 4, 3, 2, 1)]
    assert (first.has_more, second.has_more) == (True, False)
    assert (await syncs.page(4, "sync_Nobody_1")).items == ()


async def finished(ledger: Ledger, customer: CustomerId) -> None:
    """One sync of *customer*, asked for and done."""
    await ledger.request_sync(customer, "ON_DEMAND")
    held = await ledger.acquire(customer, NOVEMBER)
    assert held is not None
    await ledger.release(held.lease, sync=DONE)


async def test_only_the_last_syncs_of_a_customer_are_remembered(
    redis: Redis, clock: Clock, syncs: Syncs
) -> None:
    """A flush each quarter of an hour for years must not fill the ledger."""
    ledger = await open_ledger(redis, clock, LedgerPolicy(sync_history=3))
    for _ in range(5):
        await finished(ledger, CUSTOMER)

    page = await syncs.page(10, customer=CUSTOMER)
    assert [each.id for each in page.items] == ["sync_Test1_5", "sync_Test1_4", "sync_Test1_3"]
    assert (await syncs.page(10)).items == page.items
    assert not page.has_more


async def test_a_sync_that_was_forgotten_while_it_ran_stays_forgotten(
    redis: Redis, clock: Clock, syncs: Syncs
) -> None:
    """It comes back in no half."""
    ledger = await open_ledger(redis, clock, LedgerPolicy(sync_history=1))
    first, _ = await ledger.request_sync(CUSTOMER, "ON_DEMAND")
    held = await taken(ledger)
    second, _ = await ledger.request_sync(CUSTOMER, "SUPPORT")
    await tell(ledger, held)
    await ledger.release(held.lease, sync=DONE)

    assert [each and each.id for each in await syncs.many([first.id, second.id])] == [
        None,
        second.id,
    ]
    assert not await redis.exists(keys.sync(CUSTOMER, 1))


@pytest.mark.parametrize("wrong", ["sync_x", "sync__1", "il_1", "sync_Test1_x", "sync_Test1_²", ""])
async def test_an_id_of_nothing_finds_nothing(syncs: Syncs, wrong: str) -> None:
    """People paste anything."""
    assert await syncs.get(wrong) is None
