"""Leases: claims, request batches written ahead, fenced commits, and the life of a period up to its seal."""

from datetime import timedelta
from decimal import Decimal

import pytest
from redis.asyncio import Redis

from billing.errors import LeaseLost, LedgerUnavailable
from billing.invoicing.snapshot import (
    Lease,
    PeriodState,
    PlannedLine,
    RequestBatch,
    RequestKind,
    StripeLine,
    StripeRequest,
)
from billing.ledger import DeltaOutcome, LeasedPeriod, Ledger, keys
from billing.ledger.queries import Backlog
from billing.ledger.syncs import SyncFailure, SyncOutcome, SyncStatus
from billing.usage import CustomerId, LineKey, Period, carried_line_key
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

CPU, RAM = LineKey("cpu"), LineKey("ram")
BATCH = RequestBatch(
    seq=1,
    version="1:x",
    verify="0@y",
    prepared_ms=5,
    requests=(
        StripeRequest(
            RequestKind.UPDATE_LINES,
            "POST",
            "/v1/invoices/in_1/update_lines",
            {"lines": [{"id": "il_1"}]},
            "gw1:a:0",
            (CPU,),
        ),
        StripeRequest(
            RequestKind.ADD_LINES,
            "POST",
            "/v1/invoices/in_1/add_lines",
            {"lines": []},
            "gw1:a:1",
            (RAM,),
        ),
    ),
    expected_lines={
        CPU: PlannedLine(Decimal("1.5"), "price_cpu", 1),
        RAM: PlannedLine(Decimal(-2), "price_ram", -4),
    },
)
LINES = {CPU: StripeLine("il_1", Decimal("1.5"), "price_cpu", 1)}


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


async def acquire_lease(ledger: Ledger, period: Period = NOVEMBER) -> LeasedPeriod:
    """Acquire the lease, which must be free."""
    leased = await ledger.acquire(CUSTOMER, period)
    assert leased is not None
    return leased


async def commit_all(
    ledger: Ledger, leased: LeasedPeriod, lines: dict[LineKey, StripeLine] = LINES
) -> None:
    """Commit that Stripe has everything in the snapshot of *leased*."""
    snapshot = leased.snapshot
    await ledger.commit(
        leased.lease,
        version=snapshot.version,
        verify=snapshot.verify_requested,
        invoice="in_1",
        lines=lines,
    )


async def close_and_commit(ledger: Ledger) -> LeasedPeriod:
    """Close November, commit, keep the lease."""
    assert await ledger.close(CUSTOMER, NOVEMBER)
    leased = await acquire_lease(ledger)
    await commit_all(ledger, leased)
    return leased


async def test_claimed_period_is_hidden_for_the_visibility_time(
    ledger: Ledger, clock: Clock
) -> None:
    """A worker that dies with it costs only time."""
    shard = keys.shard_of(CUSTOMER)
    assert await ledger.claim(shard, 10, 90_000) == []
    clock.advance(minutes=15)
    assert await ledger.claim(shard, 0, 90_000) == []
    assert await ledger.claim(shard, 10, 90_000) == [(CUSTOMER, NOVEMBER)]
    assert await ledger.claim(shard, 10, 90_000) == []
    clock.advance(seconds=90)
    assert await ledger.claim(shard, 10, 90_000) == [(CUSTOMER, NOVEMBER)]


async def test_claim_priority_returns_closing_periods_and_requested_syncs(
    ledger: Ledger, clock: Clock
) -> None:
    """A closing month must not wait behind routine flushes, no matter how many are due."""
    shard = keys.shard_of(CUSTOMER)
    clock.advance(hours=5)
    assert await ledger.claim_priority(shard, 10, 90_000) == []

    await ledger.request_sync(CUSTOMER, "ON_DEMAND")
    clock.advance(seconds=1)
    assert await ledger.claim_priority(shard, 10, 90_000) == [(CUSTOMER, NOVEMBER)]
    assert await ledger.claim_priority(shard, 10, 90_000) == []
    leased = await acquire_lease(ledger)
    await commit_all(ledger, leased)
    await ledger.release(leased.lease, sync=SyncOutcome(SyncStatus.SUCCEEDED))
    clock.advance(seconds=90)
    assert await ledger.claim_priority(shard, 10, 90_000) == []

    await ledger.close(CUSTOMER, NOVEMBER)
    assert await ledger.claim_priority(shard, 0, 90_000) == []
    assert await ledger.claim_priority(shard, 10, 90_000) == [(CUSTOMER, NOVEMBER)]
    leased = await acquire_lease(ledger)
    await ledger.release(leased.lease, delay_ms=600_000)
    clock.advance(seconds=599)
    assert await ledger.claim_priority(shard, 10, 90_000) == []
    clock.advance(seconds=1)
    assert await ledger.claim_priority(shard, 10, 90_000) == [(CUSTOMER, NOVEMBER)]
    assert await ledger.claim(shard, 10, 90_000) == []


async def test_sync_priority_survives_retry(ledger: Ledger, clock: Clock) -> None:
    """A claim during the run, or the death of a worker, must not demote it to a routine flush."""
    shard = keys.shard_of(CUSTOMER)
    await ledger.request_sync(CUSTOMER, "ON_DEMAND")
    leased = await acquire_lease(ledger)
    clock.advance(seconds=1)
    assert await ledger.claim_priority(shard, 10, 30_000) == [(CUSTOMER, NOVEMBER)]
    retrying = SyncOutcome(SyncStatus.RETRYING)
    await ledger.release(leased.lease, delay_ms=120_000, sync=retrying)
    clock.advance(seconds=119)
    assert await ledger.claim_priority(shard, 10, 30_000) == []
    clock.advance(seconds=1)
    assert await ledger.claim_priority(shard, 10, 30_000) == [(CUSTOMER, NOVEMBER)]


async def test_backlogs_report_the_longest_wait_of_each_shard(ledger: Ledger, clock: Clock) -> None:
    """Usage that is delayed for any reason counts as well."""
    shard = keys.shard_of(CUSTOMER)
    clock.advance(minutes=20)
    backlogs = await ledger.backlogs()
    assert len(backlogs) == keys.SHARDS
    assert backlogs[shard] == Backlog(priority_ms=None, due_ms=5 * 60_000, unsynced_ms=20 * 60_000)

    leased = await acquire_lease(ledger)
    clock.advance(minutes=1)
    await outcomes(ledger, delta("meanwhile"))
    clock.advance(minutes=1)
    await commit_all(ledger, leased)
    assert (await ledger.backlogs())[shard].unsynced_ms == 60_000
    await ledger.release(leased.lease, sync=SyncOutcome(SyncStatus.SUCCEEDED))
    assert (await ledger.backlogs())[shard] == Backlog(
        priority_ms=None, due_ms=-14 * 60_000, unsynced_ms=60_000
    )

    leased = await acquire_lease(ledger)
    await commit_all(ledger, leased)
    await ledger.release(leased.lease)
    assert (await ledger.backlogs())[shard] == Backlog(None, None, None)


async def test_lease_is_exclusive_until_released_or_expired(ledger: Ledger, clock: Clock) -> None:
    """Fences increase; crashes are counted until a release."""
    first = await acquire_lease(ledger)
    assert await ledger.acquire(CUSTOMER, NOVEMBER) is None
    await ledger.renew(first.lease, 120_000)
    clock.advance(seconds=100)
    assert await ledger.acquire(CUSTOMER, NOVEMBER) is None
    clock.advance(seconds=21)
    second = await acquire_lease(ledger)
    await ledger.release(second.lease)
    third = await acquire_lease(ledger)

    assert [int(leased.lease.fence.partition(":")[0]) for leased in (first, second, third)] == [
        1,
        2,
        3,
    ]
    assert (second.snapshot.crashes, third.snapshot.crashes) == (2, 1)


async def test_every_write_with_a_lost_lease_is_refused(ledger: Ledger, clock: Clock) -> None:
    """A stalled worker can resume between any two writes."""
    lost = (await acquire_lease(ledger)).lease
    clock.advance(minutes=2)
    winner = await acquire_lease(ledger)
    await ledger.prepare(winner.lease, BATCH)
    before = await ledger.snapshot(CUSTOMER, NOVEMBER)

    for write in (
        ledger.renew(lost),
        ledger.prepare(lost, BATCH),
        ledger.mark_request_done(lost, 0),
        ledger.mark_in_doubt(lost),
        ledger.commit(lost, version=None, verify=None, invoice=None, lines={}),
        ledger.release(lost),
        ledger.seal(lost, version=before.version, residuals={}),
        ledger.park(lost, SyncFailure("x", "y")),
    ):
        with pytest.raises(LeaseLost):
            await write

    assert await ledger.snapshot(CUSTOMER, NOVEMBER) == before


@pytest.mark.parametrize("fence", ["1:nonceX", "1", "", "2:"])
async def test_fence_is_compared_as_a_whole(ledger: Ledger, fence: str) -> None:
    """After a rewind the counter repeats, but the nonce does not."""
    await acquire_lease(ledger)
    with pytest.raises(LeaseLost):
        await ledger.renew(Lease(CUSTOMER, NOVEMBER, fence))


async def test_request_batch_is_read_back_as_written(ledger: Ledger, clock: Clock) -> None:
    """Another worker sends the same bodies under the same keys, and completed requests stay completed."""
    first = await acquire_lease(ledger)
    await ledger.prepare(first.lease, BATCH)
    await ledger.mark_request_done(first.lease, 0)
    clock.advance(minutes=2)

    found = (await acquire_lease(ledger)).snapshot
    assert found.batch is not None
    assert (found.batch.seq, found.batch.expected_lines, found.seq) == (1, BATCH.expected_lines, 1)
    assert [op.done for op in found.batch.requests] == [True, False]
    assert [(op.kind, op.params, op.idempotency_key, op.lines) for op in found.batch.requests] == [
        (op.kind, op.params, op.idempotency_key, op.lines) for op in BATCH.requests
    ]


async def test_mark_request_done_without_a_batch_loses_the_lease(ledger: Ledger) -> None:
    """The batch was lost in a rewind: its worker knows more than the ledger, and must stop."""
    leased = await acquire_lease(ledger)
    with pytest.raises(LeaseLost):
        await ledger.mark_request_done(leased.lease, 0)


async def test_commit_of_everything_removes_the_period_from_the_due_queue(
    ledger: Ledger, clock: Clock
) -> None:
    """No other commit does."""
    leased = await acquire_lease(ledger)
    await ledger.prepare(leased.lease, BATCH)
    clock.advance(seconds=1)
    await commit_all(ledger, leased)

    found = await ledger.snapshot(CUSTOMER, NOVEMBER)
    assert found.up_to_date
    assert (found.invoice, found.lines, found.batch, found.synced_ms) == (
        "in_1",
        LINES,
        None,
        clock(),
    )
    assert (found.pending_deltas, found.oldest_pending_ms) == (0, None)
    assert await ledger.due_ms(CUSTOMER, NOVEMBER) is None


async def test_usage_recorded_during_a_flush_stays_due(ledger: Ledger, clock: Clock) -> None:
    """It waits for its own interval, or a busy customer would be flushed without pause."""
    leased = await acquire_lease(ledger)
    clock.advance(seconds=2)
    recorded_ms = clock()
    await outcomes(ledger, delta("during"))
    clock.advance(seconds=2)
    await commit_all(ledger, leased)
    between = await ledger.due_ms(CUSTOMER, NOVEMBER)
    await ledger.release(leased.lease, sync=SyncOutcome(SyncStatus.SUCCEEDED, lines_added=1))

    found = await ledger.snapshot(CUSTOMER, NOVEMBER)
    assert between is not None
    assert (found.pending_deltas, found.oldest_pending_ms, found.up_to_date) == (
        1,
        recorded_ms,
        False,
    )
    assert await ledger.due_ms(CUSTOMER, NOVEMBER) == recorded_ms + 900_000


async def test_commit_can_leave_or_remove_the_synced_version(ledger: Ledger) -> None:
    """None leaves it unchanged; the empty version makes the next flush plan anew."""
    leased = await acquire_lease(ledger)
    await commit_all(ledger, leased)
    await ledger.commit(
        leased.lease,
        version=None,
        verify=None,
        invoice="in_1",
        lines=LINES,
        seq=7,
        invoice_generation=2,
    )
    unchanged = await ledger.snapshot(CUSTOMER, NOVEMBER)
    await ledger.commit(
        leased.lease, version="", verify=None, invoice=None, lines={}, in_doubt=True
    )
    removed = await ledger.snapshot(CUSTOMER, NOVEMBER)

    assert (
        unchanged.up_to_date,
        unchanged.seq,
        unchanged.invoice_generation,
        unchanged.in_doubt_since_ms,
    ) == (
        True,
        7,
        2,
        0,
    )
    assert (removed.synced_version, removed.invoice, removed.lines) == (None, None, {})
    assert removed.in_doubt_since_ms == removed.now_ms


async def test_draft_is_verified_again_after_an_abandoned_request(
    ledger: Ledger, clock: Clock
) -> None:
    """The request may arrive late and duplicate a line; without new usage no flush would notice for a week."""
    leased = await acquire_lease(ledger)
    await ledger.commit(
        leased.lease, version="", verify=None, invoice=None, lines={}, in_doubt=True
    )
    await commit_all(ledger, leased)
    await ledger.release(leased.lease)
    early = await acquire_lease(ledger)
    await ledger.release(early.lease)
    due = await ledger.due_ms(CUSTOMER, NOVEMBER)
    clock.advance(minutes=10)
    late = await acquire_lease(ledger)
    await commit_all(ledger, late)
    await ledger.release(late.lease)

    assert early.snapshot.up_to_date
    assert due == clock()
    assert late.snapshot.is_synced
    assert not late.snapshot.up_to_date
    assert await ledger.due_ms(CUSTOMER, NOVEMBER) is None


async def test_mark_in_doubt_is_stored(ledger: Ledger, clock: Clock) -> None:
    """Finalization waits for a while after it."""
    leased = await acquire_lease(ledger)
    clock.advance(seconds=3)
    await ledger.mark_in_doubt(leased.lease)
    assert (await ledger.snapshot(CUSTOMER, NOVEMBER)).in_doubt_since_ms == clock()


async def test_failed_flush_is_due_again_after_its_delay(ledger: Ledger, clock: Clock) -> None:
    """Attempts are counted until one succeeds."""
    for attempt in range(3):
        leased = await acquire_lease(ledger)
        assert leased.snapshot.attempts == attempt
        await ledger.release(
            leased.lease,
            delay_ms=2_000,
            sync=SyncOutcome(SyncStatus.RETRYING, failure=SyncFailure("busy", "Later.")),
        )
        assert await ledger.due_ms(CUSTOMER, NOVEMBER) == clock() + 2_000
    leased = await acquire_lease(ledger)
    await commit_all(ledger, leased)
    await ledger.release(leased.lease, sync=SyncOutcome(SyncStatus.SUCCEEDED))
    assert (await ledger.snapshot(CUSTOMER, NOVEMBER)).attempts == 0
    assert await ledger.due_ms(CUSTOMER, NOVEMBER) is None


async def test_verify_requested_during_a_flush_is_not_completed_by_it(
    ledger: Ledger, clock: Clock
) -> None:
    """The running flush has read Stripe's invoice before the request."""
    leased = await acquire_lease(ledger)
    await ledger.request_verify(CUSTOMER, NOVEMBER)
    await commit_all(ledger, leased)
    await ledger.release(leased.lease)

    found = await ledger.snapshot(CUSTOMER, NOVEMBER)
    assert found.version == found.synced_version
    assert not found.up_to_date
    assert await ledger.due_ms(CUSTOMER, NOVEMBER) == clock()
    leased = await acquire_lease(ledger)
    await commit_all(ledger, leased)
    await ledger.release(leased.lease)
    assert (await ledger.snapshot(CUSTOMER, NOVEMBER)).up_to_date


async def test_parked_period_waits_until_woken_or_an_hour_passes(
    ledger: Ledger, clock: Clock
) -> None:
    """The failure code is in its snapshot."""
    leased = await acquire_lease(ledger)
    await ledger.park(leased.lease, SyncFailure("price_archived", "Unarchive the price."))
    parked, due = await ledger.snapshot(CUSTOMER, NOVEMBER), await ledger.due_ms(CUSTOMER, NOVEMBER)
    await ledger.wake(CUSTOMER, NOVEMBER)

    assert (parked.parked_reason, due) == ("price_archived", clock() + 3_600_000)
    assert (await ledger.snapshot(CUSTOMER, NOVEMBER)).parked_reason is None
    assert await ledger.due_ms(CUSTOMER, NOVEMBER) == clock()


async def test_sync_requested_while_a_flush_parks_is_due_at_once(
    ledger: Ledger, clock: Clock
) -> None:
    """The requester may have fixed the cause; the hour is for periods without a request."""
    leased = await acquire_lease(ledger)
    await ledger.request_sync(CUSTOMER, "ON_DEMAND")
    await ledger.park(leased.lease, SyncFailure("price_archived", "Unarchive the price."))

    assert await ledger.due_ms(CUSTOMER, NOVEMBER) == clock()


async def test_wake_parked_makes_only_parked_periods_due(ledger: Ledger, clock: Clock) -> None:
    """A fixed price helps every customer who uses it; other due times do not change."""
    await outcomes(ledger, delta("other", customer=OTHER))
    due_ms = await ledger.due_ms(OTHER, NOVEMBER)
    leased = await acquire_lease(ledger)
    await ledger.park(leased.lease, SyncFailure("price_archived", "Unarchive the price."))
    assert sum(backlog.parked for backlog in await ledger.backlogs()) == 1

    assert await ledger.wake_parked() == 1

    assert (await ledger.snapshot(CUSTOMER, NOVEMBER)).parked_reason is None
    assert await ledger.due_ms(CUSTOMER, NOVEMBER) == clock()
    assert await ledger.due_ms(OTHER, NOVEMBER) == due_ms
    assert sum(backlog.parked for backlog in await ledger.backlogs()) == 0


async def test_sealed_period_is_not_parked(ledger: Ledger) -> None:
    """Even if its worker dies right after; woken after its expiry it would credit its whole bill."""
    leased = await acquire_lease(ledger)
    await ledger.park(leased.lease, SyncFailure("price_archived", "Unarchive the price."))
    leased = await close_and_commit(ledger)
    assert await ledger.seal(leased.lease, version=leased.snapshot.version, residuals={})

    assert await ledger.wake_parked() == 0


async def test_ended_periods_are_found_and_closed_once(ledger: Ledger, clock: Clock) -> None:
    """A second or a late cron run changes nothing."""
    shard = keys.shard_of(CUSTOMER)
    clock.now = NOVEMBER.end
    assert await ledger.ended_periods(shard, clock(), 10) == [(CUSTOMER, NOVEMBER)]
    assert await ledger.close(CUSTOMER, NOVEMBER)
    assert not await ledger.close(CUSTOMER, NOVEMBER)
    assert not await ledger.close(OTHER, NOVEMBER)
    assert await ledger.ended_periods(shard, clock(), 10) == []
    assert (await ledger.snapshot(CUSTOMER, NOVEMBER)).state is PeriodState.CLOSING
    assert await ledger.due_ms(CUSTOMER, NOVEMBER) == clock()


async def test_closing_period_stays_due_after_any_commit(ledger: Ledger, clock: Clock) -> None:
    """Only the seal ends it."""
    leased = await close_and_commit(ledger)
    await ledger.release(leased.lease, delay_ms=600_000)
    assert await ledger.due_ms(CUSTOMER, NOVEMBER) == clock() + 600_000


async def test_seal_carries_residuals_to_the_next_period(ledger: Ledger, redis: Redis) -> None:
    """A quantity that the invoice lacks or has in excess is billed next month, under its original month."""
    await outcomes(ledger, delta("ram", "3", "ram"))
    leased = await close_and_commit(ledger)
    version = (await ledger.snapshot(CUSTOMER, NOVEMBER)).version
    await outcomes(ledger, delta("late", "0.5"), delta("next", "9"))
    residuals = {CPU: Decimal("0.25"), RAM: Decimal(-1), LineKey("zero"): Decimal(0)}

    assert await ledger.seal(leased.lease, version=version, residuals=residuals)
    await ledger.release(leased.lease)

    sealed, following = (
        await ledger.snapshot(CUSTOMER, NOVEMBER),
        await ledger.snapshot(CUSTOMER, DECEMBER),
    )
    assert (sealed.state, sealed.totals) == (
        PeriodState.SEALED,
        {CPU: Decimal("1.25"), RAM: Decimal(4)},
    )
    assert following.totals == {
        carried_line_key("cpu", NOVEMBER): Decimal("9.75"),
        carried_line_key("ram", NOVEMBER): Decimal(-1),
    }
    assert following.prices == {
        carried_line_key("cpu", NOVEMBER): "price_cpu",
        carried_line_key("ram", NOVEMBER): "price_ram",
    }
    assert not following.up_to_date
    assert await ledger.due_ms(CUSTOMER, NOVEMBER) is None
    assert await ledger.due_ms(CUSTOMER, DECEMBER) is not None


async def test_carried_line_keeps_its_original_month(ledger: Ledger) -> None:
    """Over any number of months, past sealed ones; adjustments keep their line too."""
    await ledger.close(CUSTOMER, NOVEMBER)
    await outcomes(ledger, delta("late", "2"))
    january = DECEMBER.next()
    await ledger.close(CUSTOMER, DECEMBER)
    december = await acquire_lease(ledger, DECEMBER)
    assert await ledger.seal(
        december.lease,
        version=december.snapshot.version,
        residuals={carried_line_key("cpu", NOVEMBER): Decimal(2)},
    )
    november = await acquire_lease(ledger)
    assert await ledger.seal(
        november.lease, version=november.snapshot.version, residuals={CPU: Decimal("1.5")}
    )

    assert (await ledger.snapshot(CUSTOMER, DECEMBER)).totals == {
        carried_line_key("cpu", NOVEMBER): Decimal(0)
    }
    assert (await ledger.snapshot(CUSTOMER, january)).totals == {
        carried_line_key("cpu", NOVEMBER): Decimal("3.5")
    }


async def test_seal_carries_residuals_to_no_ended_month(ledger: Ledger, clock: Clock) -> None:
    """After a month without usage, a late seal would begin it only to be closed and billed at once."""
    await outcomes(ledger, delta("a", "2"))
    january = DECEMBER.next()
    clock.now = january.start + timedelta(days=3)
    await ledger.close(CUSTOMER, NOVEMBER)
    leased = await acquire_lease(ledger)
    assert await ledger.seal(
        leased.lease, version=leased.snapshot.version, residuals={CPU: Decimal("1.5")}
    )

    assert await ledger.list_periods(CUSTOMER) == [NOVEMBER, january]
    assert (await ledger.snapshot(CUSTOMER, january)).totals == {
        carried_line_key("cpu", NOVEMBER): Decimal("1.5")
    }


async def test_seal_requires_a_closing_period_and_its_current_version(ledger: Ledger) -> None:
    """For an open or changed period the caller must read again."""
    leased = await acquire_lease(ledger)
    assert not await ledger.seal(leased.lease, version=leased.snapshot.version, residuals={})
    await ledger.close(CUSTOMER, NOVEMBER)
    assert not await ledger.seal(leased.lease, version="0:0", residuals={})
    assert (await ledger.snapshot(CUSTOMER, NOVEMBER)).state is PeriodState.CLOSING


async def test_line_missing_in_the_ledger_is_carried_at_its_invoiced_price(ledger: Ledger) -> None:
    """After a rewind the invoice has more lines than the ledger; the credit still needs a price."""
    await ledger.close(CUSTOMER, NOVEMBER)
    leased = await acquire_lease(ledger)
    lost = StripeLine("il_9", Decimal(2), "price_ram", 4)
    await commit_all(ledger, leased, {**LINES, RAM: lost})
    version = leased.snapshot.version

    with pytest.raises(LedgerUnavailable):
        await ledger.seal(
            leased.lease,
            version=version,
            residuals={RAM: Decimal(-2), LineKey("egress"): Decimal(1)},
        )
    assert await ledger.seal(leased.lease, version=version, residuals={RAM: Decimal(-2)})

    following = await ledger.snapshot(CUSTOMER, DECEMBER)
    assert following.totals == {carried_line_key("ram", NOVEMBER): Decimal(-2)}
    assert following.prices == {carried_line_key("ram", NOVEMBER): "price_ram"}


async def test_seal_out_of_range_moves_nothing(ledger: Ledger) -> None:
    """A seal is atomic."""
    leased = await close_and_commit(ledger)
    await outcomes(ledger, delta("late", "999999999999999"), delta("ram", "1", "ram"))
    before = await ledger.snapshot(CUSTOMER, DECEMBER)

    with pytest.raises(LedgerUnavailable):
        await ledger.seal(
            leased.lease, version=leased.snapshot.version, residuals={CPU: Decimal(1)}
        )

    assert (await ledger.snapshot(CUSTOMER, NOVEMBER)).state is PeriodState.CLOSING
    assert await ledger.snapshot(CUSTOMER, DECEMBER) == before


async def test_sealed_period_expires_after_its_retention(
    ledger: Ledger, redis: Redis, clock: Clock
) -> None:
    """All its keys expire; unsealed periods have no expiry."""
    await outcomes(ledger, delta("app", app="web", region="fra", organization="acme"))
    leased = await close_and_commit(ledger)
    assert await ledger.seal(
        leased.lease, version=leased.snapshot.version, residuals={CPU: Decimal(1)}
    )
    await ledger.release(leased.lease)

    of_november = [key async for key in redis.scan_iter(f"*{NOVEMBER}*") if b":ids:" not in key]
    retention = 100 * 86_400_000
    assert len(of_november) == 6
    assert all([retention - 60_000 < await redis.pttl(key) <= retention for key in of_november])
    assert await redis.pttl(keys.period(CUSTOMER, DECEMBER)) == -1
    assert await ledger.list_periods(CUSTOMER) == [NOVEMBER, DECEMBER]
    clock.advance(days=101)
    assert await ledger.list_periods(CUSTOMER) == [DECEMBER]


async def test_period_without_usage_can_be_leased(ledger: Ledger) -> None:
    """Support may sync a customer without usage: it is up to date."""
    customer = CustomerId("cus_Quiet")
    leased = await ledger.acquire(customer, NOVEMBER)
    assert leased is not None
    assert leased.snapshot.up_to_date
    await ledger.release(leased.lease)
    assert await outcomes(ledger, delta("x", customer=customer)) == [DeltaOutcome.UNKNOWN_CUSTOMER]
