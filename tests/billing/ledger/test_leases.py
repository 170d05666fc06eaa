"""The flush port: leases, flights written ahead, commits that see the whole truth, and the way to seal."""

from datetime import timedelta
from decimal import Decimal

import pytest
from redis.asyncio import Redis

from billing.errors import LeaseLost, LedgerUnavailable
from billing.invoicing.snapshot import (
    Flight,
    Lease,
    Op,
    OpKind,
    PeriodState,
    PlannedLine,
    StripeLine,
)
from billing.ledger import DeltaOutcome, Held, Ledger, keys
from billing.ledger.queries import Waits
from billing.ledger.syncs import SyncFailure, SyncOutcome, SyncStatus
from billing.usage import CustomerId, LineKey, Period, carried
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
FLIGHT = Flight(
    seq=1,
    version="1:x",
    verify="0@y",
    first_ms=5,
    ops=(
        Op(
            OpKind.UPDATE_LINES,
            "POST",
            "/v1/invoices/in_1/update_lines",
            {"lines": [{"id": "il_1"}]},
            "gw1:a:0",
            (CPU,),
        ),
        Op(
            OpKind.ADD_LINES,
            "POST",
            "/v1/invoices/in_1/add_lines",
            {"lines": []},
            "gw1:a:1",
            (RAM,),
        ),
    ),
    landed={
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


async def taken(ledger: Ledger, period: Period = NOVEMBER) -> Held:
    """The lease, which must be free."""
    held = await ledger.acquire(CUSTOMER, period)
    assert held is not None
    return held


async def tell(ledger: Ledger, held: Held, lines: dict[LineKey, StripeLine] = LINES) -> None:
    """Commit that Stripe knows of all that *held* shows."""
    snapshot = held.snapshot
    await ledger.commit(
        held.lease,
        version=snapshot.version,
        verify=snapshot.verify_requested,
        invoice="in_1",
        lines=lines,
    )


async def close_and_tell(ledger: Ledger) -> Held:
    """Cut November, commit, keep the lease."""
    assert await ledger.close(CUSTOMER, NOVEMBER)
    held = await taken(ledger)
    await tell(ledger, held)
    return held


async def test_a_claimed_member_is_hidden_until_its_visibility_ends(
    ledger: Ledger, clock: Clock
) -> None:
    """A worker that dies with it loses nothing but time."""
    shard = keys.shard_of(CUSTOMER)
    assert await ledger.claim(shard, 10, 90_000) == []
    clock.pass_(minutes=15)
    assert await ledger.claim(shard, 0, 90_000) == []
    assert await ledger.claim(shard, 10, 90_000) == [(CUSTOMER, NOVEMBER)]
    assert await ledger.claim(shard, 10, 90_000) == []
    clock.pass_(seconds=90)
    assert await ledger.claim(shard, 10, 90_000) == [(CUSTOMER, NOVEMBER)]


async def test_what_closes_or_was_asked_for_is_claimed_before_the_others(
    ledger: Ledger, clock: Clock
) -> None:
    """A month that ends must not wait behind everybody's turn, however long that line has grown."""
    shard = keys.shard_of(CUSTOMER)
    clock.pass_(hours=5)
    assert await ledger.claim_first(shard, 10, 90_000) == []

    await ledger.request_sync(CUSTOMER, "ON_DEMAND")
    clock.pass_(seconds=1)
    assert await ledger.claim_first(shard, 10, 90_000) == [(CUSTOMER, NOVEMBER)]
    assert await ledger.claim_first(shard, 10, 90_000) == []
    held = await taken(ledger)
    await tell(ledger, held)
    await ledger.release(held.lease, sync=SyncOutcome(SyncStatus.SUCCEEDED))
    clock.pass_(seconds=90)
    assert await ledger.claim_first(shard, 10, 90_000) == []

    await ledger.close(CUSTOMER, NOVEMBER)
    assert await ledger.claim_first(shard, 0, 90_000) == []
    assert await ledger.claim_first(shard, 10, 90_000) == [(CUSTOMER, NOVEMBER)]
    held = await taken(ledger)
    await ledger.release(held.lease, delay_ms=600_000)
    clock.pass_(seconds=599)
    assert await ledger.claim_first(shard, 10, 90_000) == []
    clock.pass_(seconds=1)
    assert await ledger.claim_first(shard, 10, 90_000) == [(CUSTOMER, NOVEMBER)]
    assert await ledger.claim(shard, 10, 90_000) == []


async def test_who_asked_keeps_the_place_while_the_sync_runs_and_is_tried_again(
    ledger: Ledger, clock: Clock
) -> None:
    """A look in between, or a worker that died, must not send it behind everybody's turn."""
    shard = keys.shard_of(CUSTOMER)
    await ledger.request_sync(CUSTOMER, "ON_DEMAND")
    held = await taken(ledger)
    clock.pass_(seconds=1)
    assert await ledger.claim_first(shard, 10, 30_000) == [(CUSTOMER, NOVEMBER)]
    retrying = SyncOutcome(SyncStatus.RETRYING)
    await ledger.release(held.lease, delay_ms=120_000, sync=retrying)
    clock.pass_(seconds=119)
    assert await ledger.claim_first(shard, 10, 30_000) == []
    clock.pass_(seconds=1)
    assert await ledger.claim_first(shard, 10, 30_000) == [(CUSTOMER, NOVEMBER)]


async def test_who_has_waited_longest_is_known_without_looking_at_everybody(
    ledger: Ledger, clock: Clock
) -> None:
    """An operator's first question; what is held back for any reason counts as well."""
    shard = keys.shard_of(CUSTOMER)
    clock.pass_(minutes=20)
    waits = await ledger.waits()
    assert len(waits) == keys.SHARDS
    assert waits[shard] == Waits(first=None, due=5 * 60_000, untold=20 * 60_000)

    held = await taken(ledger)
    clock.pass_(minutes=1)
    await outcomes(ledger, delta("meanwhile"))
    clock.pass_(minutes=1)
    await tell(ledger, held)
    assert (await ledger.waits())[shard].untold == 60_000
    await ledger.release(held.lease, sync=SyncOutcome(SyncStatus.SUCCEEDED))
    assert (await ledger.waits())[shard] == Waits(first=None, due=-14 * 60_000, untold=60_000)

    held = await taken(ledger)
    await tell(ledger, held)
    await ledger.release(held.lease)
    assert (await ledger.waits())[shard] == Waits(None, None, None)


async def test_one_worker_at_a_time(ledger: Ledger, clock: Clock) -> None:
    """The lease is free again when it is given back or has expired."""
    first = await taken(ledger)
    assert await ledger.acquire(CUSTOMER, NOVEMBER) is None
    await ledger.renew(first.lease, 120_000)
    clock.pass_(seconds=100)
    assert await ledger.acquire(CUSTOMER, NOVEMBER) is None
    clock.pass_(seconds=21)
    second = await taken(ledger)
    await ledger.release(second.lease)
    third = await taken(ledger)

    assert [int(each.lease.fence.partition(":")[0]) for each in (first, second, third)] == [1, 2, 3]
    assert (second.snapshot.crashes, third.snapshot.crashes) == (2, 1)


async def test_every_write_of_a_worker_that_was_overtaken_is_refused(
    ledger: Ledger, clock: Clock
) -> None:
    """A zombie wakes up in the middle of anything."""
    lost = (await taken(ledger)).lease
    clock.pass_(minutes=2)
    winner = await taken(ledger)
    await ledger.prepare(winner.lease, FLIGHT)
    before = await ledger.peek(CUSTOMER, NOVEMBER)

    for write in (
        ledger.renew(lost),
        ledger.prepare(lost, FLIGHT),
        ledger.mark(lost, 0),
        ledger.in_doubt(lost),
        ledger.commit(lost, version=None, verify=None, invoice=None, lines={}),
        ledger.release(lost),
        ledger.seal(lost, version=before.version, residuals={}),
        ledger.park(lost, SyncFailure("x", "y")),
    ):
        with pytest.raises(LeaseLost):
            await write

    assert await ledger.peek(CUSTOMER, NOVEMBER) == before


@pytest.mark.parametrize("fence", ["1:nonceX", "1", "", "2:"])
async def test_the_whole_fence_counts(ledger: Ledger, fence: str) -> None:
    """After a rewind the counter repeats; the nonce does not."""
    await taken(ledger)
    with pytest.raises(LeaseLost):
        await ledger.renew(Lease(CUSTOMER, NOVEMBER, fence))


async def test_a_flight_is_read_back_as_it_was_written(ledger: Ledger, clock: Clock) -> None:
    """The same bodies under the same keys, whoever sends them, and what is done stays done."""
    first = await taken(ledger)
    await ledger.prepare(first.lease, FLIGHT)
    await ledger.mark(first.lease, 0)
    clock.pass_(minutes=2)

    found = (await taken(ledger)).snapshot
    assert found.flight is not None
    assert (found.flight.seq, found.flight.landed, found.seq) == (1, FLIGHT.landed, 1)
    assert [op.done for op in found.flight.ops] == [True, False]
    assert [(op.kind, op.params, op.key, op.lines) for op in found.flight.ops] == [
        (op.kind, op.params, op.key, op.lines) for op in FLIGHT.ops
    ]


async def test_nothing_can_be_marked_without_a_flight(ledger: Ledger) -> None:
    """It was rewound away: its worker knows more than the ledger, and has to stop."""
    held = await taken(ledger)
    with pytest.raises(LeaseLost):
        await ledger.mark(held.lease, 0)


async def test_a_commit_of_everything_ends_the_due_mark(ledger: Ledger, clock: Clock) -> None:
    """And only that."""
    held = await taken(ledger)
    await ledger.prepare(held.lease, FLIGHT)
    clock.pass_(seconds=1)
    await tell(ledger, held)

    found = await ledger.peek(CUSTOMER, NOVEMBER)
    assert found.up_to_date
    assert (found.invoice, found.lines, found.flight, found.synced_ms) == (
        "in_1",
        LINES,
        None,
        clock(),
    )
    assert (found.pending_deltas, found.oldest_pending_ms) == (0, None)
    assert await ledger.due_ms(CUSTOMER, NOVEMBER) is None


async def test_usage_that_came_during_a_flush_stays_due(ledger: Ledger, clock: Clock) -> None:
    """It waits for its own turn, or a busy customer would be flushed without pause."""
    held = await taken(ledger)
    clock.pass_(seconds=2)
    came = clock()
    await outcomes(ledger, delta("during"))
    clock.pass_(seconds=2)
    await tell(ledger, held)
    between = await ledger.due_ms(CUSTOMER, NOVEMBER)
    await ledger.release(held.lease, sync=SyncOutcome(SyncStatus.SUCCEEDED, lines_added=1))

    found = await ledger.peek(CUSTOMER, NOVEMBER)
    assert between is not None
    assert (found.pending_deltas, found.oldest_pending_ms, found.up_to_date) == (1, came, False)
    assert await ledger.due_ms(CUSTOMER, NOVEMBER) == came + 900_000


async def test_a_version_can_be_forgotten_and_left(ledger: Ledger) -> None:
    """None leaves what is known; the empty version makes the next pass plan anew."""
    held = await taken(ledger)
    await tell(ledger, held)
    await ledger.commit(
        held.lease,
        version=None,
        verify=None,
        invoice="in_1",
        lines=LINES,
        seq=7,
        invoice_generation=2,
    )
    kept = await ledger.peek(CUSTOMER, NOVEMBER)
    await ledger.commit(held.lease, version="", verify=None, invoice=None, lines={}, doubt=True)
    forgotten = await ledger.peek(CUSTOMER, NOVEMBER)

    assert (kept.up_to_date, kept.seq, kept.invoice_generation, kept.ambiguous_ms) == (
        True,
        7,
        2,
        0,
    )
    assert (forgotten.synced, forgotten.invoice, forgotten.lines) == (None, None, {})
    assert forgotten.ambiguous_ms == forgotten.now_ms


async def test_a_request_that_was_given_up_has_its_draft_looked_at_once_more(
    ledger: Ledger, clock: Clock
) -> None:
    """It may arrive late and double a line; without anything new to tell nobody would look for a week."""
    held = await taken(ledger)
    await ledger.commit(held.lease, version="", verify=None, invoice=None, lines={}, doubt=True)
    await tell(ledger, held)
    await ledger.release(held.lease)
    early = await taken(ledger)
    await ledger.release(early.lease)
    due = await ledger.due_ms(CUSTOMER, NOVEMBER)
    clock.pass_(minutes=10)
    late = await taken(ledger)
    await tell(ledger, late)
    await ledger.release(late.lease)

    assert early.snapshot.up_to_date
    assert due == clock()
    assert late.snapshot.told
    assert not late.snapshot.up_to_date
    assert await ledger.due_ms(CUSTOMER, NOVEMBER) is None


async def test_a_doubt_is_remembered(ledger: Ledger, clock: Clock) -> None:
    """Nothing is finalized for a while after it."""
    held = await taken(ledger)
    clock.pass_(seconds=3)
    await ledger.in_doubt(held.lease)
    assert (await ledger.peek(CUSTOMER, NOVEMBER)).ambiguous_ms == clock()


async def test_a_failed_flush_is_due_again_after_its_delay(ledger: Ledger, clock: Clock) -> None:
    """And the attempts are counted until one succeeds."""
    for attempt in range(3):
        held = await taken(ledger)
        assert held.snapshot.attempts == attempt
        await ledger.release(
            held.lease,
            delay_ms=2_000,
            sync=SyncOutcome(SyncStatus.RETRYING, failure=SyncFailure("busy", "Later.")),
        )
        assert await ledger.due_ms(CUSTOMER, NOVEMBER) == clock() + 2_000
    held = await taken(ledger)
    await tell(ledger, held)
    await ledger.release(held.lease, sync=SyncOutcome(SyncStatus.SUCCEEDED))
    assert (await ledger.peek(CUSTOMER, NOVEMBER)).attempts == 0
    assert await ledger.due_ms(CUSTOMER, NOVEMBER) is None


async def test_a_verify_is_asked_for_apart_from_the_version(ledger: Ledger, clock: Clock) -> None:
    """A flush that was under way must not answer a question that it has not read."""
    held = await taken(ledger)
    await ledger.request_verify(CUSTOMER, NOVEMBER)
    await tell(ledger, held)
    await ledger.release(held.lease)

    found = await ledger.peek(CUSTOMER, NOVEMBER)
    assert found.version == found.synced
    assert not found.up_to_date
    assert await ledger.due_ms(CUSTOMER, NOVEMBER) == clock()
    held = await taken(ledger)
    await tell(ledger, held)
    await ledger.release(held.lease)
    assert (await ledger.peek(CUSTOMER, NOVEMBER)).up_to_date


async def test_a_parked_period_rests_until_somebody_wakes_it(ledger: Ledger, clock: Clock) -> None:
    """Or an hour has passed; the failure says why."""
    held = await taken(ledger)
    await ledger.park(held.lease, SyncFailure("price_archived", "Unarchive the price."))
    parked, due = await ledger.peek(CUSTOMER, NOVEMBER), await ledger.due_ms(CUSTOMER, NOVEMBER)
    await ledger.wake(CUSTOMER, NOVEMBER)

    assert (parked.stuck, due) == ("price_archived", clock() + 3_600_000)
    assert (await ledger.peek(CUSTOMER, NOVEMBER)).stuck is None
    assert await ledger.due_ms(CUSTOMER, NOVEMBER) == clock()


async def test_a_sync_asked_for_while_a_flush_parks_is_due_at_once(
    ledger: Ledger, clock: Clock
) -> None:
    """Who asked may have cured the cause; an hour's rest is for a period that nobody asks about."""
    held = await taken(ledger)
    await ledger.request_sync(CUSTOMER, "ON_DEMAND")
    await ledger.park(held.lease, SyncFailure("price_archived", "Unarchive the price."))

    assert await ledger.due_ms(CUSTOMER, NOVEMBER) == clock()


async def test_everything_that_is_parked_can_be_woken_at_once(ledger: Ledger, clock: Clock) -> None:
    """A price that is cured cures everybody who uses it; the others' turn is not touched."""
    await outcomes(ledger, delta("other", customer=OTHER))
    turn = await ledger.due_ms(OTHER, NOVEMBER)
    held = await taken(ledger)
    await ledger.park(held.lease, SyncFailure("price_archived", "Unarchive the price."))
    assert sum(each.parked for each in await ledger.waits()) == 1

    assert await ledger.wake_parked() == 1

    assert (await ledger.peek(CUSTOMER, NOVEMBER)).stuck is None
    assert await ledger.due_ms(CUSTOMER, NOVEMBER) == clock()
    assert await ledger.due_ms(OTHER, NOVEMBER) == turn
    assert sum(each.parked for each in await ledger.waits()) == 0


async def test_a_sealed_period_is_parked_no_more(ledger: Ledger) -> None:
    """Also when its worker dies right after; woken when it is forgotten, it would credit its whole bill."""
    held = await taken(ledger)
    await ledger.park(held.lease, SyncFailure("price_archived", "Unarchive the price."))
    held = await close_and_tell(ledger)
    assert await ledger.seal(held.lease, version=held.snapshot.version, residuals={})

    assert await ledger.wake_parked() == 0


async def test_ended_periods_are_found_and_cut_once(ledger: Ledger, clock: Clock) -> None:
    """A second cron, or a late one, changes nothing."""
    shard = keys.shard_of(CUSTOMER)
    clock.now = NOVEMBER.end
    assert await ledger.ended(shard, clock(), 10) == [(CUSTOMER, NOVEMBER)]
    assert await ledger.close(CUSTOMER, NOVEMBER)
    assert not await ledger.close(CUSTOMER, NOVEMBER)
    assert not await ledger.close(OTHER, NOVEMBER)
    assert await ledger.ended(shard, clock(), 10) == []
    assert (await ledger.peek(CUSTOMER, NOVEMBER)).state is PeriodState.CLOSING
    assert await ledger.due_ms(CUSTOMER, NOVEMBER) == clock()


async def test_a_closing_period_stays_due_whatever_is_committed(
    ledger: Ledger, clock: Clock
) -> None:
    """Its end is a sealed period, and nothing else."""
    held = await close_and_tell(ledger)
    await ledger.release(held.lease, delay_ms=600_000)
    assert await ledger.due_ms(CUSTOMER, NOVEMBER) == clock() + 600_000


async def test_sealing_carries_what_was_not_billed(ledger: Ledger, redis: Redis) -> None:
    """What the invoice lacks, or has too much, is billed next month under its origin's name."""
    await outcomes(ledger, delta("ram", "3", "ram"))
    held = await close_and_tell(ledger)
    version = (await ledger.peek(CUSTOMER, NOVEMBER)).version
    await outcomes(ledger, delta("late", "0.5"), delta("next", "9"))
    residuals = {CPU: Decimal("0.25"), RAM: Decimal(-1), LineKey("zero"): Decimal(0)}

    assert await ledger.seal(held.lease, version=version, residuals=residuals)
    await ledger.release(held.lease)

    sealed, following = await ledger.peek(CUSTOMER, NOVEMBER), await ledger.peek(CUSTOMER, DECEMBER)
    assert (sealed.state, sealed.totals) == (
        PeriodState.SEALED,
        {CPU: Decimal("1.25"), RAM: Decimal(4)},
    )
    assert following.totals == {
        carried("cpu", NOVEMBER): Decimal("9.75"),
        carried("ram", NOVEMBER): Decimal(-1),
    }
    assert following.prices == {
        carried("cpu", NOVEMBER): "price_cpu",
        carried("ram", NOVEMBER): "price_ram",
    }
    assert not following.up_to_date
    assert await ledger.due_ms(CUSTOMER, NOVEMBER) is None
    assert await ledger.due_ms(CUSTOMER, DECEMBER) is not None


async def test_what_was_carried_once_keeps_its_origin(ledger: Ledger) -> None:
    """Over any number of months, past those that are sealed already; corrections keep their line too."""
    await ledger.close(CUSTOMER, NOVEMBER)
    await outcomes(ledger, delta("late", "2"))
    january = DECEMBER.next()
    await ledger.close(CUSTOMER, DECEMBER)
    december = await taken(ledger, DECEMBER)
    assert await ledger.seal(
        december.lease,
        version=december.snapshot.version,
        residuals={carried("cpu", NOVEMBER): Decimal(2)},
    )
    november = await taken(ledger)
    assert await ledger.seal(
        november.lease, version=november.snapshot.version, residuals={CPU: Decimal("1.5")}
    )

    assert (await ledger.peek(CUSTOMER, DECEMBER)).totals == {carried("cpu", NOVEMBER): Decimal(0)}
    assert (await ledger.peek(CUSTOMER, january)).totals == {
        carried("cpu", NOVEMBER): Decimal("3.5")
    }


async def test_what_was_not_billed_begins_no_month_that_has_ended(
    ledger: Ledger, clock: Clock
) -> None:
    """Sealed late, after a month without usage: that one would be cut and billed at once."""
    await outcomes(ledger, delta("a", "2"))
    january = DECEMBER.next()
    clock.now = january.start + timedelta(days=3)
    await ledger.close(CUSTOMER, NOVEMBER)
    held = await taken(ledger)
    assert await ledger.seal(
        held.lease, version=held.snapshot.version, residuals={CPU: Decimal("1.5")}
    )

    assert await ledger.periods(CUSTOMER) == [NOVEMBER, january]
    assert (await ledger.peek(CUSTOMER, january)).totals == {
        carried("cpu", NOVEMBER): Decimal("1.5")
    }


async def test_nothing_is_sealed_by_an_old_picture(ledger: Ledger) -> None:
    """Open, or changed since it was compared: the caller has to look again."""
    held = await taken(ledger)
    assert not await ledger.seal(held.lease, version=held.snapshot.version, residuals={})
    await ledger.close(CUSTOMER, NOVEMBER)
    assert not await ledger.seal(held.lease, version="0:0", residuals={})
    assert (await ledger.peek(CUSTOMER, NOVEMBER)).state is PeriodState.CLOSING


async def test_a_line_the_ledger_lost_is_carried_at_stripes_price(ledger: Ledger) -> None:
    """After a rewind the invoice knows more; the credit has to be priced all the same."""
    await ledger.close(CUSTOMER, NOVEMBER)
    held = await taken(ledger)
    lost = StripeLine("il_9", Decimal(2), "price_ram", 4)
    await tell(ledger, held, {**LINES, RAM: lost})
    version = held.snapshot.version

    with pytest.raises(LedgerUnavailable):
        await ledger.seal(
            held.lease, version=version, residuals={RAM: Decimal(-2), LineKey("egress"): Decimal(1)}
        )
    assert await ledger.seal(held.lease, version=version, residuals={RAM: Decimal(-2)})

    following = await ledger.peek(CUSTOMER, DECEMBER)
    assert following.totals == {carried("ram", NOVEMBER): Decimal(-2)}
    assert following.prices == {carried("ram", NOVEMBER): "price_ram"}


async def test_a_seal_that_would_leave_the_range_moves_nothing(ledger: Ledger) -> None:
    """It is all or nothing, like everything here."""
    held = await close_and_tell(ledger)
    await outcomes(ledger, delta("late", "999999999999999"), delta("ram", "1", "ram"))
    before = await ledger.peek(CUSTOMER, DECEMBER)

    with pytest.raises(LedgerUnavailable):
        await ledger.seal(held.lease, version=held.snapshot.version, residuals={CPU: Decimal(1)})

    assert (await ledger.peek(CUSTOMER, NOVEMBER)).state is PeriodState.CLOSING
    assert await ledger.peek(CUSTOMER, DECEMBER) == before


async def test_a_sealed_period_goes_after_its_tail(
    ledger: Ledger, redis: Redis, clock: Clock
) -> None:
    """Everything of it; what is not sealed stays for ever."""
    await outcomes(ledger, delta("app", app="web", region="fra", organization="acme"))
    held = await close_and_tell(ledger)
    assert await ledger.seal(held.lease, version=held.snapshot.version, residuals={CPU: Decimal(1)})
    await ledger.release(held.lease)

    of_november = [key async for key in redis.scan_iter(f"*{NOVEMBER}*") if b":ids:" not in key]
    tail = 100 * 86_400_000
    assert len(of_november) == 6
    assert all([tail - 60_000 < await redis.pttl(key) <= tail for key in of_november])
    assert await redis.pttl(keys.period(CUSTOMER, DECEMBER)) == -1
    assert await ledger.periods(CUSTOMER) == [NOVEMBER, DECEMBER]
    clock.pass_(days=101)
    assert await ledger.periods(CUSTOMER) == [DECEMBER]


async def test_a_period_can_be_looked_at_before_anything_was_recorded(ledger: Ledger) -> None:
    """Support may sync a customer without usage: there is nothing to do, and that is said."""
    customer = CustomerId("cus_Quiet")
    held = await ledger.acquire(customer, NOVEMBER)
    assert held is not None
    assert held.snapshot.up_to_date
    await ledger.release(held.lease)
    assert await outcomes(ledger, delta("x", customer=customer)) == [DeltaOutcome.UNKNOWN_CUSTOMER]
