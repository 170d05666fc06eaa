"""Due queue: claims, priority, backlogs, and the waking of parked periods."""

import pytest
from redis.asyncio import Redis

from billing.ledger import Ledger, keys
from billing.ledger.due import Backlog
from billing.ledger.syncs import SyncFailure, SyncOutcome, SyncStatus
from tests.support.ledger import (
    CUSTOMER,
    NOVEMBER,
    OTHER,
    Clock,
    acquire_lease,
    close_and_commit,
    commit_all,
    delta,
    open_ledger,
    outcomes,
)


@pytest.fixture
def clock() -> Clock:
    """The middle of November 2026."""
    return Clock()


@pytest.fixture
async def ledger(redis: Redis, clock: Clock) -> Ledger:
    """A ledger with 1.5 cpu of usage in November."""
    ledger = await open_ledger(redis, clock)
    await outcomes(ledger, delta("first", "1.5"))
    return ledger


async def test_claimed_period_is_hidden_for_the_visibility_time(
    ledger: Ledger, clock: Clock
) -> None:
    """A worker that dies with it costs only time."""
    shard = keys.shard_of(CUSTOMER)
    assert await ledger.due.claim(shard, 10, 90_000) == []
    clock.advance(minutes=15)
    assert await ledger.due.claim(shard, 0, 90_000) == []
    assert await ledger.due.claim(shard, 10, 90_000) == [(CUSTOMER, NOVEMBER)]
    assert await ledger.due.claim(shard, 10, 90_000) == []
    clock.advance(seconds=90)
    assert await ledger.due.claim(shard, 10, 90_000) == [(CUSTOMER, NOVEMBER)]


async def test_claim_priority_returns_closing_periods_and_requested_syncs(
    ledger: Ledger, clock: Clock
) -> None:
    """A closing month must not wait behind routine flushes, no matter how many are due."""
    shard = keys.shard_of(CUSTOMER)
    clock.advance(hours=5)
    assert await ledger.due.claim_priority(shard, 10, 90_000) == []

    await ledger.syncs.request(CUSTOMER, "ON_DEMAND")
    clock.advance(seconds=1)
    assert await ledger.due.claim_priority(shard, 10, 90_000) == [(CUSTOMER, NOVEMBER)]
    assert await ledger.due.claim_priority(shard, 10, 90_000) == []
    leased = await acquire_lease(ledger)
    await commit_all(ledger, leased)
    await ledger.leases.release(leased.lease, sync=SyncOutcome(SyncStatus.SUCCEEDED))
    clock.advance(seconds=90)
    assert await ledger.due.claim_priority(shard, 10, 90_000) == []

    await ledger.periods.close(CUSTOMER, NOVEMBER)
    assert await ledger.due.claim_priority(shard, 0, 90_000) == []
    assert await ledger.due.claim_priority(shard, 10, 90_000) == [(CUSTOMER, NOVEMBER)]
    leased = await acquire_lease(ledger)
    await ledger.leases.release(leased.lease, delay_ms=600_000)
    clock.advance(seconds=599)
    assert await ledger.due.claim_priority(shard, 10, 90_000) == []
    clock.advance(seconds=1)
    assert await ledger.due.claim_priority(shard, 10, 90_000) == [(CUSTOMER, NOVEMBER)]
    assert await ledger.due.claim(shard, 10, 90_000) == []


async def test_sync_priority_survives_retry(ledger: Ledger, clock: Clock) -> None:
    """A claim during the run, or the death of a worker, must not demote it to a routine flush."""
    shard = keys.shard_of(CUSTOMER)
    await ledger.syncs.request(CUSTOMER, "ON_DEMAND")
    leased = await acquire_lease(ledger)
    clock.advance(seconds=1)
    assert await ledger.due.claim_priority(shard, 10, 30_000) == [(CUSTOMER, NOVEMBER)]
    retrying = SyncOutcome(SyncStatus.RETRYING)
    await ledger.leases.release(leased.lease, delay_ms=120_000, sync=retrying)
    clock.advance(seconds=119)
    assert await ledger.due.claim_priority(shard, 10, 30_000) == []
    clock.advance(seconds=1)
    assert await ledger.due.claim_priority(shard, 10, 30_000) == [(CUSTOMER, NOVEMBER)]


async def test_backlogs_report_the_longest_wait_of_each_shard(ledger: Ledger, clock: Clock) -> None:
    """Usage that is delayed for any reason counts as well."""
    shard = keys.shard_of(CUSTOMER)
    clock.advance(minutes=20)
    backlogs = await ledger.due.backlogs()
    assert len(backlogs) == keys.SHARDS
    assert backlogs[shard] == Backlog(priority_ms=None, due_ms=5 * 60_000, unsynced_ms=20 * 60_000)

    leased = await acquire_lease(ledger)
    clock.advance(minutes=1)
    await outcomes(ledger, delta("meanwhile"))
    clock.advance(minutes=1)
    await commit_all(ledger, leased)
    assert (await ledger.due.backlogs())[shard].unsynced_ms == 60_000
    await ledger.leases.release(leased.lease, sync=SyncOutcome(SyncStatus.SUCCEEDED))
    assert (await ledger.due.backlogs())[shard] == Backlog(
        priority_ms=None, due_ms=-14 * 60_000, unsynced_ms=60_000
    )

    leased = await acquire_lease(ledger)
    await commit_all(ledger, leased)
    await ledger.leases.release(leased.lease)
    assert (await ledger.due.backlogs())[shard] == Backlog(None, None, None)


async def test_parked_period_waits_until_woken_or_an_hour_passes(
    ledger: Ledger, clock: Clock
) -> None:
    """The failure code is in its snapshot."""
    leased = await acquire_lease(ledger)
    await ledger.leases.park(leased.lease, SyncFailure("price_archived", "Unarchive the price."))
    parked, due = (
        await ledger.periods.snapshot(CUSTOMER, NOVEMBER),
        await ledger.due.time_ms(CUSTOMER, NOVEMBER),
    )
    await ledger.due.wake(CUSTOMER, NOVEMBER)

    assert (parked.parked_reason, due) == ("price_archived", clock() + 3_600_000)
    assert (await ledger.periods.snapshot(CUSTOMER, NOVEMBER)).parked_reason is None
    assert await ledger.due.time_ms(CUSTOMER, NOVEMBER) == clock()


async def test_wake_parked_makes_only_parked_periods_due(ledger: Ledger, clock: Clock) -> None:
    """A fixed price helps every customer who uses it; other due times do not change."""
    await outcomes(ledger, delta("other", customer=OTHER))
    due_ms = await ledger.due.time_ms(OTHER, NOVEMBER)
    leased = await acquire_lease(ledger)
    await ledger.leases.park(leased.lease, SyncFailure("price_archived", "Unarchive the price."))
    assert sum(backlog.parked for backlog in await ledger.due.backlogs()) == 1

    assert await ledger.due.wake_parked() == 1

    assert (await ledger.periods.snapshot(CUSTOMER, NOVEMBER)).parked_reason is None
    assert await ledger.due.time_ms(CUSTOMER, NOVEMBER) == clock()
    assert await ledger.due.time_ms(OTHER, NOVEMBER) == due_ms
    assert sum(backlog.parked for backlog in await ledger.due.backlogs()) == 0


async def test_sealed_period_is_not_parked(ledger: Ledger) -> None:
    """Even if its worker dies right after; woken after its expiry it would credit its whole bill."""
    leased = await acquire_lease(ledger)
    await ledger.leases.park(leased.lease, SyncFailure("price_archived", "Unarchive the price."))
    leased = await close_and_commit(ledger)
    assert await ledger.periods.seal(leased.lease, version=leased.snapshot.version, residuals={})

    assert await ledger.due.wake_parked() == 0
