"""Leases: claims, request batches written ahead, fenced commits, and the life of a period up to its seal."""

from datetime import timedelta
from decimal import Decimal

import pytest
from redis.asyncio import Redis

from billing.errors import LeaseLost, UnknownPeriod
from billing.invoicing.request_batch import PlannedLine, RequestBatch, RequestKind, StripeRequest
from billing.invoicing.snapshot import Lease
from billing.ledger import DeltaOutcome, Ledger, keys
from billing.ledger.syncs import SyncFailure, SyncOutcome, SyncStatus
from billing.usage import CustomerId, LineKey
from tests.support.ledger import (
    CUSTOMER,
    LINES,
    NOVEMBER,
    OTHER,
    Clock,
    acquire_lease,
    commit_all,
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


async def test_lease_is_exclusive_until_released_or_expired(ledger: Ledger, clock: Clock) -> None:
    """Fences increase; crashes are counted until a release."""
    first = await acquire_lease(ledger)
    assert await ledger.leases.acquire(CUSTOMER, NOVEMBER) is None
    await ledger.leases.renew(first.lease, 120_000)
    clock.advance(seconds=100)
    assert await ledger.leases.acquire(CUSTOMER, NOVEMBER) is None
    clock.advance(seconds=21)
    second = await acquire_lease(ledger)
    await ledger.leases.release(second.lease)
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
    await ledger.leases.prepare(winner.lease, BATCH)
    before = await ledger.periods.snapshot(CUSTOMER, NOVEMBER)

    for write in (
        ledger.leases.renew(lost),
        ledger.leases.prepare(lost, BATCH),
        ledger.leases.mark_request_done(lost, 0),
        ledger.leases.mark_in_doubt(lost),
        ledger.leases.commit(lost, version=None, verify=None, invoice=None, lines={}),
        ledger.leases.release(lost),
        ledger.periods.seal(lost, version=before.version, residuals={}),
        ledger.leases.park(lost, SyncFailure("x", "y")),
    ):
        with pytest.raises(LeaseLost):
            await write

    assert await ledger.periods.snapshot(CUSTOMER, NOVEMBER) == before


@pytest.mark.parametrize("fence", ["1:nonceX", "1", "", "2:"])
async def test_fence_is_compared_as_a_whole(ledger: Ledger, fence: str) -> None:
    """After a rewind the counter repeats, but the nonce does not."""
    await acquire_lease(ledger)
    with pytest.raises(LeaseLost):
        await ledger.leases.renew(Lease(CUSTOMER, NOVEMBER, fence))


async def test_request_batch_is_read_back_as_written(ledger: Ledger, clock: Clock) -> None:
    """Another worker sends the same bodies under the same keys, and completed requests stay completed."""
    first = await acquire_lease(ledger)
    await ledger.leases.prepare(first.lease, BATCH)
    await ledger.leases.mark_request_done(first.lease, 0)
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
        await ledger.leases.mark_request_done(leased.lease, 0)


async def test_commit_of_everything_removes_the_period_from_the_due_queue(
    ledger: Ledger, clock: Clock
) -> None:
    """No other commit does."""
    leased = await acquire_lease(ledger)
    await ledger.leases.prepare(leased.lease, BATCH)
    clock.advance(seconds=1)
    await commit_all(ledger, leased)

    found = await ledger.periods.snapshot(CUSTOMER, NOVEMBER)
    assert found.up_to_date
    assert (found.invoice, found.lines, found.batch, found.synced_ms) == (
        "in_1",
        LINES,
        None,
        clock(),
    )
    assert (found.pending_deltas, found.oldest_pending_ms) == (0, None)
    assert await ledger.due.time_ms(CUSTOMER, NOVEMBER) is None


async def test_usage_recorded_during_a_flush_stays_due(ledger: Ledger, clock: Clock) -> None:
    """It waits for its own interval, or a busy customer would be flushed without pause."""
    leased = await acquire_lease(ledger)
    clock.advance(seconds=2)
    recorded_ms = clock()
    await outcomes(ledger, delta("during"))
    clock.advance(seconds=2)
    await commit_all(ledger, leased)
    between = await ledger.due.time_ms(CUSTOMER, NOVEMBER)
    await ledger.leases.release(leased.lease, sync=SyncOutcome(SyncStatus.SUCCEEDED, lines_added=1))

    found = await ledger.periods.snapshot(CUSTOMER, NOVEMBER)
    assert between is not None
    assert (found.pending_deltas, found.oldest_pending_ms, found.up_to_date) == (
        1,
        recorded_ms,
        False,
    )
    assert await ledger.due.time_ms(CUSTOMER, NOVEMBER) == recorded_ms + 900_000


async def test_commit_can_leave_or_remove_the_synced_version(ledger: Ledger) -> None:
    """None leaves it unchanged; the empty version makes the next flush plan anew."""
    leased = await acquire_lease(ledger)
    await commit_all(ledger, leased)
    await ledger.leases.commit(
        leased.lease,
        version=None,
        verify=None,
        invoice="in_1",
        lines=LINES,
        seq=7,
        invoice_generation=2,
    )
    unchanged = await ledger.periods.snapshot(CUSTOMER, NOVEMBER)
    await ledger.leases.commit(
        leased.lease, version="", verify=None, invoice=None, lines={}, in_doubt=True
    )
    removed = await ledger.periods.snapshot(CUSTOMER, NOVEMBER)

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
    await ledger.leases.commit(
        leased.lease, version="", verify=None, invoice=None, lines={}, in_doubt=True
    )
    await commit_all(ledger, leased)
    await ledger.leases.release(leased.lease)
    early = await acquire_lease(ledger)
    await ledger.leases.release(early.lease)
    due = await ledger.due.time_ms(CUSTOMER, NOVEMBER)
    clock.advance(minutes=10)
    late = await acquire_lease(ledger)
    await commit_all(ledger, late)
    await ledger.leases.release(late.lease)

    assert early.snapshot.up_to_date
    assert due == clock()
    assert late.snapshot.is_synced
    assert not late.snapshot.up_to_date
    assert await ledger.due.time_ms(CUSTOMER, NOVEMBER) is None


async def test_mark_in_doubt_is_stored(ledger: Ledger, clock: Clock) -> None:
    """Finalization waits for a while after it."""
    leased = await acquire_lease(ledger)
    clock.advance(seconds=3)
    await ledger.leases.mark_in_doubt(leased.lease)
    assert (await ledger.periods.snapshot(CUSTOMER, NOVEMBER)).in_doubt_since_ms == clock()


async def test_failed_flush_is_due_again_after_its_delay(ledger: Ledger, clock: Clock) -> None:
    """Attempts are counted until one succeeds."""
    for attempt in range(3):
        leased = await acquire_lease(ledger)
        assert leased.snapshot.attempts == attempt
        await ledger.leases.release(
            leased.lease,
            delay_ms=2_000,
            sync=SyncOutcome(SyncStatus.RETRYING, failure=SyncFailure("busy", "Later.")),
        )
        assert await ledger.due.time_ms(CUSTOMER, NOVEMBER) == clock() + 2_000
    leased = await acquire_lease(ledger)
    await commit_all(ledger, leased)
    await ledger.leases.release(leased.lease, sync=SyncOutcome(SyncStatus.SUCCEEDED))
    assert (await ledger.periods.snapshot(CUSTOMER, NOVEMBER)).attempts == 0
    assert await ledger.due.time_ms(CUSTOMER, NOVEMBER) is None


async def test_sync_requested_while_a_flush_parks_is_due_at_once(
    ledger: Ledger, clock: Clock
) -> None:
    """The requester may have fixed the cause; the hour is for periods without a request."""
    leased = await acquire_lease(ledger)
    await ledger.syncs.request(CUSTOMER, "ON_DEMAND")
    await ledger.leases.park(leased.lease, SyncFailure("price_archived", "Unarchive the price."))

    assert await ledger.due.time_ms(CUSTOMER, NOVEMBER) == clock()


async def test_period_without_usage_can_be_leased(ledger: Ledger) -> None:
    """Support may sync a customer without usage: it is up to date."""
    customer = CustomerId("cus_Quiet")
    leased = await ledger.leases.acquire(customer, NOVEMBER)
    assert leased is not None
    assert leased.snapshot.up_to_date
    await ledger.leases.release(leased.lease)
    assert await outcomes(ledger, delta("x", customer=customer)) == [DeltaOutcome.UNKNOWN_CUSTOMER]


async def test_forgotten_month_is_not_begun_by_a_lease(ledger: Ledger, clock: Clock) -> None:
    """Begun again, empty, it would credit its whole bill; it is unknown, and no longer due."""
    clock.now = NOVEMBER.end + timedelta(hours=1, milliseconds=-1)
    assert await ledger.leases.acquire(OTHER, NOVEMBER) is not None
    clock.advance(milliseconds=1)
    forgotten = NOVEMBER.previous()
    due = keys.due(keys.shard_of(OTHER))
    await ledger._server.execute("ZADD", due, clock(), f"{OTHER}|{forgotten}")

    with pytest.raises(UnknownPeriod):
        await ledger.leases.acquire(OTHER, forgotten)

    assert await ledger.due.time_ms(OTHER, forgotten) is None
    assert await ledger.periods.list_retained(OTHER) == [NOVEMBER]
