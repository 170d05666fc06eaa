"""Syncs: requested, run, retried, finished; each one records the result of its own flush."""

import pytest
from redis.asyncio import Redis

from billing.ledger import Ledger, LedgerPolicy, keys
from billing.ledger.syncs import Sync, SyncFailure, SyncOutcome, Syncs, SyncStatus
from billing.usage import CustomerId
from tests.support.ledger import (
    CUSTOMER,
    DECEMBER,
    NOVEMBER,
    OTHER,
    Clock,
    acquire_lease,
    commit_all,
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
    """A ledger with two pending deltas."""
    ledger = await open_ledger(redis, clock)
    await outcomes(ledger, delta("a"), delta("b"))
    return ledger


@pytest.fixture
def syncs(ledger: Ledger) -> Syncs:
    """The record of syncs."""
    return ledger.syncs


async def reread(syncs: Syncs, sync: Sync) -> Sync:
    """Read *sync* again."""
    now = await syncs.get(sync.id)
    assert now is not None
    return now


async def test_second_request_joins_the_queued_sync(
    ledger: Ledger, syncs: Syncs, clock: Clock
) -> None:
    """Twenty clicks are one sync, due within a second."""
    sync, joined = await ledger.syncs.request(CUSTOMER, "ON_DEMAND", by="ann")
    again, joined_too = await ledger.syncs.request(CUSTOMER, "PORTAL")

    assert (joined, joined_too, again) == (False, True, sync)
    assert sync.status is SyncStatus.QUEUED
    assert (sync.id, sync.trigger, sync.by, sync.requested_ms) == (
        "sync_Test1_1",
        "ON_DEMAND",
        "ann",
        clock(),
    )
    assert await ledger.due.time_ms(CUSTOMER, NOVEMBER) == clock() + 1_000


async def test_sync_records_every_run(ledger: Ledger, syncs: Syncs, clock: Clock) -> None:
    """Queued, running, retrying, succeeded, with counts added up over its runs."""
    sync, _ = await ledger.syncs.request(CUSTOMER, "ON_DEMAND")
    clock.advance(seconds=1)
    started = clock()
    leased = await acquire_lease(ledger)
    running = await reread(syncs, sync)
    await ledger.leases.release(leased.lease, delay_ms=5_000, sync=BUSY)
    retrying = await reread(syncs, sync)
    clock.advance(seconds=5)
    leased = await acquire_lease(ledger)
    await commit_all(ledger, leased)
    await ledger.leases.release(leased.lease, sync=DONE)
    done = await reread(syncs, sync)

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


async def test_request_during_a_run_is_queued_for_the_next_run(
    ledger: Ledger, syncs: Syncs, clock: Clock
) -> None:
    """The run may have read the ledger before the request, so the next is due at once when it ends."""
    first, _ = await ledger.syncs.request(CUSTOMER, "ON_DEMAND")
    leased = await acquire_lease(ledger)
    second, joined = await ledger.syncs.request(CUSTOMER, "SUPPORT")
    await commit_all(ledger, leased)
    await ledger.leases.release(leased.lease, sync=DONE)

    assert (joined, second.id) == (False, "sync_Test1_2")
    assert (await reread(syncs, first)).status is SyncStatus.SUCCEEDED
    assert (await reread(syncs, second)).status is SyncStatus.QUEUED
    assert await ledger.due.time_ms(CUSTOMER, NOVEMBER) == clock()

    leased = await acquire_lease(ledger)
    await ledger.leases.release(leased.lease)
    assert (await reread(syncs, second)).status is SyncStatus.SUCCEEDED
    assert await ledger.due.time_ms(CUSTOMER, NOVEMBER) is None


async def test_request_joins_a_retrying_sync(ledger: Ledger, clock: Clock) -> None:
    """It makes the waiting sync due earlier instead of creating another."""
    first, _ = await ledger.syncs.request(CUSTOMER, "ON_DEMAND")
    leased = await acquire_lease(ledger)
    await ledger.leases.release(leased.lease, delay_ms=60_000, sync=BUSY)

    again, joined = await ledger.syncs.request(CUSTOMER, "ON_DEMAND")

    assert (again.id, joined) == (first.id, True)
    assert await ledger.due.time_ms(CUSTOMER, NOVEMBER) == clock() + 1_000


async def test_sync_continues_after_its_worker_died(
    ledger: Ledger, syncs: Syncs, clock: Clock
) -> None:
    """The next worker continues it."""
    sync, _ = await ledger.syncs.request(CUSTOMER, "ON_DEMAND")
    await acquire_lease(ledger)
    clock.advance(minutes=2)
    leased = await acquire_lease(ledger)
    await commit_all(ledger, leased)
    await ledger.leases.release(leased.lease, sync=DONE)

    done = await reread(syncs, sync)
    assert (done.status, done.attempts) == (SyncStatus.SUCCEEDED, 2)


async def test_sync_ends_although_its_worker_died_after_the_commit(
    ledger: Ledger, syncs: Syncs, clock: Clock
) -> None:
    """Nothing is pending, but the sync would stay RUNNING until the next usage."""
    sync, _ = await ledger.syncs.request(CUSTOMER, "ON_DEMAND")
    await commit_all(ledger, await acquire_lease(ledger))
    assert await ledger.due.time_ms(CUSTOMER, NOVEMBER) is not None
    clock.advance(minutes=2)
    leased = await acquire_lease(ledger)
    await ledger.leases.release(leased.lease, sync=DONE)

    assert (await reread(syncs, sync)).status is SyncStatus.SUCCEEDED
    assert await ledger.due.time_ms(CUSTOMER, NOVEMBER) is None


async def test_retried_routine_flush_has_no_priority(ledger: Ledger, clock: Clock) -> None:
    """Or all usage would use the priority queue as soon as Stripe fails for a minute."""
    shard = keys.shard_of(CUSTOMER)
    leased = await acquire_lease(ledger)
    await ledger.leases.release(leased.lease, delay_ms=60_000, sync=BUSY)
    clock.advance(minutes=1)
    retried = await acquire_lease(ledger)
    await ledger.leases.release(retried.lease, delay_ms=60_000, sync=BUSY)
    await ledger.syncs.request(CUSTOMER, "ON_DEMAND")
    clock.advance(seconds=1)
    claimed = await ledger.due.claim_priority(shard, 10, 30_000)
    requested = await acquire_lease(ledger)

    assert (retried.snapshot.sync_requested, requested.snapshot.sync_requested) == (False, True)
    assert claimed == [(CUSTOMER, NOVEMBER)]


async def test_routine_flush_is_a_sync_only_if_it_changed_something(
    ledger: Ledger, syncs: Syncs
) -> None:
    """A flush without changes is not worth an entry in Support's list."""
    leased = await acquire_lease(ledger)
    await ledger.leases.release(
        leased.lease, sync=SyncOutcome(SyncStatus.SUCCEEDED, stripe_calls=1)
    )
    assert await syncs.latest(CUSTOMER) is None

    leased = await acquire_lease(ledger)
    await commit_all(ledger, leased)
    await ledger.leases.release(leased.lease, sync=DONE)

    routine = await syncs.latest(CUSTOMER)
    assert routine is not None
    assert (routine.trigger, routine.status, routine.deltas, routine.attempts, routine.by) == (
        "INTERVAL",
        "SUCCEEDED",
        2,
        1,
        None,
    )
    assert routine.started_ms is not None


async def test_routine_sync_starts_with_its_first_flush(
    ledger: Ledger, syncs: Syncs, clock: Clock
) -> None:
    """It is created at the end of the flush, with the start time of the first run."""
    began = clock()
    leased = await acquire_lease(ledger)
    clock.advance(seconds=3)
    await ledger.leases.release(leased.lease, delay_ms=5_000, sync=BUSY)
    clock.advance(seconds=5)
    leased = await acquire_lease(ledger)
    clock.advance(seconds=2)
    await commit_all(ledger, leased)
    await ledger.leases.release(leased.lease, sync=DONE)

    routine = await syncs.latest(CUSTOMER)
    assert routine is not None
    assert (routine.trigger, routine.attempts) == ("INTERVAL", 2)
    assert (routine.requested_ms, routine.started_ms, routine.finished_ms) == (
        began,
        began,
        clock(),
    )
    assert clock() - began == 10_000


async def test_parked_sync_has_failed(ledger: Ledger, syncs: Syncs) -> None:
    """It has the message of the failure, and the counts of the work done before."""
    sync, _ = await ledger.syncs.request(CUSTOMER, "ON_DEMAND")
    leased = await acquire_lease(ledger)
    await ledger.leases.park(
        leased.lease, SyncFailure("price_archived", "Unarchive the price."), DONE
    )

    failed = await reread(syncs, sync)
    assert (failed.status, failed.stripe_calls) == (SyncStatus.FAILED, 3)
    assert failed.failure == SyncFailure("price_archived", "Unarchive the price.", None)


async def test_seal_ends_every_sync_of_the_period(ledger: Ledger, syncs: Syncs) -> None:
    """No flush of the period follows."""
    first, _ = await ledger.syncs.request(CUSTOMER, "ON_DEMAND")
    leased = await acquire_lease(ledger)
    second, _ = await ledger.syncs.request(CUSTOMER, "ON_DEMAND")
    await ledger.periods.close(CUSTOMER, NOVEMBER)
    assert await ledger.periods.seal(leased.lease, version=leased.snapshot.version, residuals={})
    await ledger.leases.release(leased.lease, sync=DONE)

    states = [sync and sync.status for sync in await syncs.get_many([first.id, second.id])]
    assert states == [SyncStatus.SUCCEEDED, SyncStatus.SUCCEEDED]
    third, joined = await ledger.syncs.request(CUSTOMER, "ON_DEMAND")
    assert (third.period, joined) == (DECEMBER, False)


async def test_syncs_are_paged_newest_first_over_all_customers(
    ledger: Ledger, syncs: Syncs, clock: Clock
) -> None:
    """Also by status and by customer; ids order syncs of the same millisecond."""
    for n in range(6):
        await run_sync(ledger, CUSTOMER)
        await run_sync(ledger, OTHER)
        clock.advance(milliseconds=n // 3)
    waiting, _ = await ledger.syncs.request(OTHER, "SUPPORT")

    page = await syncs.page(5)
    paged = list(page.items)
    while page.has_more:
        page = await syncs.page(5, paged[-1].id)
        paged += page.items
    assert len(paged) == len({sync.id for sync in paged}) == 13
    assert paged == sorted(paged, key=lambda sync: (sync.requested_ms, sync.id), reverse=True)

    assert (await syncs.page(5, status=SyncStatus.QUEUED)).items == (waiting,)
    first = await syncs.page(4, customer=CUSTOMER, status=SyncStatus.SUCCEEDED)
    second = await syncs.page(4, first.items[-1].id, customer=CUSTOMER)
    ids = [sync.id for sync in (*first.items, *second.items)]
    assert ids == [f"sync_Test1_{n}" for n in (6, 5, 4, 3, 2, 1)]
    assert (first.has_more, second.has_more) == (True, False)
    assert (await syncs.page(4, "sync_Nobody_1")).items == ()


async def test_sync_that_was_requested_during_a_routine_one_comes_first(
    ledger: Ledger, syncs: Syncs, clock: Clock
) -> None:
    """A routine sync is numbered when it ends; the list is by the time of the request, on every page."""
    for _ in range(3):
        leased = await acquire_lease(ledger)
        clock.advance(milliseconds=5)
        await ledger.syncs.request(CUSTOMER, "ON_DEMAND")
        clock.advance(milliseconds=5)
        await ledger.leases.release(leased.lease, sync=DONE)  # which it wrote
        await run_sync(ledger, CUSTOMER)
        clock.advance(milliseconds=5)

    paged: list[Sync] = []
    while page := (await syncs.page(1, paged[-1].id if paged else None, customer=CUSTOMER)).items:
        paged += page

    assert len(paged) == 6
    assert paged == sorted(paged, key=lambda sync: sync.requested_ms, reverse=True)
    assert [s.id for s in paged] != sorted((s.id for s in paged), reverse=True)


async def run_sync(ledger: Ledger, customer: CustomerId) -> None:
    """Request and finish one sync of *customer*."""
    await ledger.syncs.request(customer, "ON_DEMAND")
    leased = await ledger.leases.acquire(customer, NOVEMBER)
    assert leased is not None
    await ledger.leases.release(leased.lease, sync=DONE)


async def test_sync_history_is_bounded(redis: Redis, clock: Clock, syncs: Syncs) -> None:
    """A flush every quarter of an hour for years must not fill the ledger."""
    ledger = await open_ledger(redis, clock, LedgerPolicy(sync_history=3))
    for _ in range(5):
        await run_sync(ledger, CUSTOMER)

    page = await syncs.page(10, customer=CUSTOMER)
    assert [sync.id for sync in page.items] == ["sync_Test1_5", "sync_Test1_4", "sync_Test1_3"]
    assert (await syncs.page(10)).items == page.items
    assert not page.has_more


async def test_sync_purged_while_running_is_not_restored(
    redis: Redis, clock: Clock, syncs: Syncs
) -> None:
    """Not even in part."""
    ledger = await open_ledger(redis, clock, LedgerPolicy(sync_history=1))
    first, _ = await ledger.syncs.request(CUSTOMER, "ON_DEMAND")
    leased = await acquire_lease(ledger)
    second, _ = await ledger.syncs.request(CUSTOMER, "SUPPORT")
    await commit_all(ledger, leased)
    await ledger.leases.release(leased.lease, sync=DONE)

    assert [sync and sync.id for sync in await syncs.get_many([first.id, second.id])] == [
        None,
        second.id,
    ]
    assert not await redis.exists(keys.sync(CUSTOMER, 1))


@pytest.mark.parametrize("wrong", ["sync_x", "sync__1", "il_1", "sync_Test1_x", "sync_Test1_²", ""])
async def test_invalid_id_finds_no_sync(syncs: Syncs, wrong: str) -> None:
    """Users paste anything into a search."""
    assert await syncs.get(wrong) is None
