"""Periods: their snapshots, their verification, and their life from open to sealed."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from redis.asyncio import Redis

from billing.errors import LedgerUnavailable
from billing.invoicing.snapshot import PeriodState, StripeLine
from billing.ledger import Ledger, keys
from billing.usage import LineKey, Period, carried_line_key
from tests.support.ledger import (
    CUSTOMER,
    DECEMBER,
    LINES,
    NOVEMBER,
    OTHER,
    PRICES,
    Clock,
    acquire_lease,
    close_and_commit,
    commit_all,
    delta,
    open_ledger,
    outcomes,
)

CPU, RAM = LineKey("cpu"), LineKey("ram")


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


async def test_verify_requested_during_a_flush_is_not_completed_by_it(
    ledger: Ledger, clock: Clock
) -> None:
    """The running flush has read Stripe's invoice before the request."""
    leased = await acquire_lease(ledger)
    await ledger.periods.request_verify(CUSTOMER, NOVEMBER)
    await commit_all(ledger, leased)
    await ledger.leases.release(leased.lease)

    found = await ledger.periods.snapshot(CUSTOMER, NOVEMBER)
    assert found.version == found.synced_version
    assert not found.up_to_date
    assert await ledger.due.time_ms(CUSTOMER, NOVEMBER) == clock()
    leased = await acquire_lease(ledger)
    await commit_all(ledger, leased)
    await ledger.leases.release(leased.lease)
    assert (await ledger.periods.snapshot(CUSTOMER, NOVEMBER)).up_to_date


async def test_ended_periods_are_found_and_closed_once(ledger: Ledger, clock: Clock) -> None:
    """A second or a late cron run changes nothing."""
    shard = keys.shard_of(CUSTOMER)
    clock.now = NOVEMBER.end + timedelta(hours=1)
    assert await ledger.periods.list_ended(shard, clock(), 10) == [(CUSTOMER, NOVEMBER)]
    assert await ledger.periods.close(CUSTOMER, NOVEMBER)
    assert not await ledger.periods.close(CUSTOMER, NOVEMBER)
    assert not await ledger.periods.close(OTHER, NOVEMBER)
    assert await ledger.periods.list_ended(shard, clock(), 10) == []
    assert (await ledger.periods.snapshot(CUSTOMER, NOVEMBER)).state is PeriodState.CLOSING
    assert await ledger.due.time_ms(CUSTOMER, NOVEMBER) == clock()


async def test_closing_period_stays_due_after_any_commit(ledger: Ledger, clock: Clock) -> None:
    """Only the seal ends it."""
    leased = await close_and_commit(ledger)
    await ledger.leases.release(leased.lease, delay_ms=600_000)
    assert await ledger.due.time_ms(CUSTOMER, NOVEMBER) == clock() + 600_000


async def test_seal_carries_residuals_to_the_next_period(ledger: Ledger, redis: Redis) -> None:
    """A quantity that the invoice lacks or has in excess is billed next month, under its original month."""
    await outcomes(ledger, delta("ram", "3", "ram"))
    leased = await close_and_commit(ledger)
    version = (await ledger.periods.snapshot(CUSTOMER, NOVEMBER)).version
    await outcomes(ledger, delta("late", "0.5"), delta("next", "9"))
    residuals = {CPU: Decimal("0.25"), RAM: Decimal(-1), LineKey("zero"): Decimal(0)}

    assert await ledger.periods.seal(leased.lease, version=version, residuals=residuals)
    await ledger.leases.release(leased.lease)

    sealed, following = (
        await ledger.periods.snapshot(CUSTOMER, NOVEMBER),
        await ledger.periods.snapshot(CUSTOMER, DECEMBER),
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
    assert await ledger.due.time_ms(CUSTOMER, NOVEMBER) is None
    assert await ledger.due.time_ms(CUSTOMER, DECEMBER) is not None


async def test_residual_at_another_price_gets_a_line_of_its_own(
    ledger: Ledger, redis: Redis
) -> None:
    """After a loss the next month may count the same usage at a new price; a line has one price."""
    leased = await close_and_commit(ledger)
    version = (await ledger.periods.snapshot(CUSTOMER, NOVEMBER)).version
    cheaper = {**PRICES, "cpu": replace(PRICES["cpu"], id="price_new")}
    await redis.hdel(keys.totals(CUSTOMER, NOVEMBER), "cpu")  # lost with its price
    await ledger.usage.record([delta("late", "2")], cheaper)
    await redis.hset(keys.totals(CUSTOMER, NOVEMBER), "cpu", "price_cpu 1.5")

    assert await ledger.periods.seal(
        leased.lease, version=version, residuals={CPU: Decimal("-1.5")}
    )

    following = await ledger.periods.snapshot(CUSTOMER, DECEMBER)
    assert following.totals == {
        carried_line_key("cpu", NOVEMBER): Decimal(2),
        LineKey("cpu~2026-11~price_cpu"): Decimal("-1.5"),
    }
    assert following.prices == {
        carried_line_key("cpu", NOVEMBER): "price_new",
        LineKey("cpu~2026-11~price_cpu"): "price_cpu",
    }


async def test_carried_line_keeps_its_original_month(ledger: Ledger) -> None:
    """Over any number of months, past sealed ones; adjustments keep their line too."""
    await ledger.periods.close(CUSTOMER, NOVEMBER)
    await outcomes(ledger, delta("late", "2"))
    january = DECEMBER.next()
    await ledger.periods.close(CUSTOMER, DECEMBER)
    december = await acquire_lease(ledger, DECEMBER)
    assert await ledger.periods.seal(
        december.lease,
        version=december.snapshot.version,
        residuals={carried_line_key("cpu", NOVEMBER): Decimal(2)},
    )
    november = await acquire_lease(ledger)
    assert await ledger.periods.seal(
        november.lease, version=november.snapshot.version, residuals={CPU: Decimal("1.5")}
    )

    assert (await ledger.periods.snapshot(CUSTOMER, DECEMBER)).totals == {
        carried_line_key("cpu", NOVEMBER): Decimal(0)
    }
    assert (await ledger.periods.snapshot(CUSTOMER, january)).totals == {
        carried_line_key("cpu", NOVEMBER): Decimal("3.5")
    }


async def test_seal_carries_residuals_to_no_ended_month(ledger: Ledger, clock: Clock) -> None:
    """After a month without usage, a late seal would begin it only to be closed and billed at once."""
    await outcomes(ledger, delta("a", "2"))
    january = DECEMBER.next()
    clock.now = january.start + timedelta(days=3)
    await ledger.periods.close(CUSTOMER, NOVEMBER)
    leased = await acquire_lease(ledger)
    assert await ledger.periods.seal(
        leased.lease, version=leased.snapshot.version, residuals={CPU: Decimal("1.5")}
    )

    assert await ledger.periods.list_retained(CUSTOMER) == [NOVEMBER, january]
    assert (await ledger.periods.snapshot(CUSTOMER, january)).totals == {
        carried_line_key("cpu", NOVEMBER): Decimal("1.5")
    }


async def test_seal_requires_a_closing_period_and_its_current_version(ledger: Ledger) -> None:
    """For an open or changed period the caller must read again."""
    leased = await acquire_lease(ledger)
    assert not await ledger.periods.seal(
        leased.lease, version=leased.snapshot.version, residuals={}
    )
    await ledger.periods.close(CUSTOMER, NOVEMBER)
    assert not await ledger.periods.seal(leased.lease, version="0:0", residuals={})
    assert (await ledger.periods.snapshot(CUSTOMER, NOVEMBER)).state is PeriodState.CLOSING


async def test_line_missing_in_the_ledger_is_carried_at_its_invoiced_price(ledger: Ledger) -> None:
    """After a rewind the invoice has more lines than the ledger; the credit still needs a price."""
    await ledger.periods.close(CUSTOMER, NOVEMBER)
    leased = await acquire_lease(ledger)
    lost = StripeLine("il_9", Decimal(2), "price_ram", 4)
    await commit_all(ledger, leased, {**LINES, RAM: lost})
    version = leased.snapshot.version

    with pytest.raises(LedgerUnavailable):
        await ledger.periods.seal(
            leased.lease,
            version=version,
            residuals={RAM: Decimal(-2), LineKey("egress"): Decimal(1)},
        )
    assert await ledger.periods.seal(leased.lease, version=version, residuals={RAM: Decimal(-2)})

    following = await ledger.periods.snapshot(CUSTOMER, DECEMBER)
    assert following.totals == {carried_line_key("ram", NOVEMBER): Decimal(-2)}
    assert following.prices == {carried_line_key("ram", NOVEMBER): "price_ram"}


async def test_seal_out_of_range_moves_nothing(ledger: Ledger) -> None:
    """A seal is atomic."""
    leased = await close_and_commit(ledger)
    await outcomes(ledger, delta("late", "999999999999999"), delta("ram", "1", "ram"))
    before = await ledger.periods.snapshot(CUSTOMER, DECEMBER)

    with pytest.raises(LedgerUnavailable):
        await ledger.periods.seal(
            leased.lease, version=leased.snapshot.version, residuals={CPU: Decimal(1)}
        )

    assert (await ledger.periods.snapshot(CUSTOMER, NOVEMBER)).state is PeriodState.CLOSING
    assert await ledger.periods.snapshot(CUSTOMER, DECEMBER) == before


async def test_sealed_period_expires_after_its_retention(
    ledger: Ledger, redis: Redis, clock: Clock
) -> None:
    """All its keys expire, counted from its end if a person ended it early: forgotten before, it would begin anew.

    Unsealed periods have no expiry.
    """
    await outcomes(ledger, delta("app", app="web", region="fra", organization="acme"))
    leased = await close_and_commit(ledger)
    assert await ledger.periods.seal(
        leased.lease, version=leased.snapshot.version, residuals={CPU: Decimal(1)}
    )
    await ledger.leases.release(leased.lease)

    of_november = [key async for key in redis.scan_iter(f"*{NOVEMBER}*") if b":ids:" not in key]
    retention = round(NOVEMBER.end.timestamp() * 1000) - clock() + 100 * 86_400_000
    assert len(of_november) == 6
    assert all([retention - 60_000 < await redis.pttl(key) <= retention for key in of_november])
    assert await redis.pttl(keys.period(CUSTOMER, DECEMBER)) == -1
    assert await ledger.periods.list_retained(CUSTOMER) == [NOVEMBER, DECEMBER]
    clock.advance(days=101)
    assert await ledger.periods.list_retained(CUSTOMER) == [NOVEMBER, DECEMBER]
    clock.advance(days=15)
    assert await ledger.periods.list_retained(CUSTOMER) == [DECEMBER]


async def test_period_without_usage_is_empty_and_open(ledger: Ledger) -> None:
    """It has nothing to sync."""
    snapshot = await ledger.periods.snapshot(OTHER, NOVEMBER)

    assert (snapshot.totals, snapshot.currency, snapshot.up_to_date) == ({}, "usd", True)
    assert await ledger.due.time_ms(OTHER, NOVEMBER) is None
    assert await ledger.periods.current(OTHER) == NOVEMBER
    assert await ledger.periods.list_retained(OTHER) == []


async def test_current_snapshots_reads_many_customers(ledger: Ledger) -> None:
    """For each one the period that counts usage of now."""
    await outcomes(ledger, delta("a"), delta("b", customer=OTHER))
    await ledger.periods.close(CUSTOMER, NOVEMBER)

    snapshots = await ledger.periods.current_snapshots([CUSTOMER, OTHER])
    assert snapshots == [
        await ledger.periods.snapshot(CUSTOMER, DECEMBER),
        await ledger.periods.snapshot(OTHER, NOVEMBER),
    ]
    assert await ledger.periods.current_snapshots([]) == []


@pytest.mark.parametrize(
    "period", [Period(2026, 1), Period(2026, 2), Period(2024, 2), Period(1999, 12), Period(2100, 2)]
)
async def test_calendar_of_the_scripts_equals_pythons(redis: Redis, period: Period) -> None:
    """The scripts compute months next to the data."""
    clock = Clock(period.end - timedelta(milliseconds=1))
    ledger = await open_ledger(redis, clock)
    assert await ledger.periods.current(CUSTOMER) == period
    await outcomes(ledger, delta("a", at=clock.now))

    clock.advance(milliseconds=1)
    assert await ledger.periods.current(CUSTOMER) == period.next()
    shard = keys.shard_of(CUSTOMER)
    clock.advance(hours=1, milliseconds=-1)
    assert await ledger.periods.list_ended(shard, clock(), 10) == []
    clock.advance(milliseconds=1)
    assert await ledger.periods.list_ended(shard, clock(), 10) == [(CUSTOMER, period)]


async def test_verify_begins_a_lost_period_only_within_the_recovery_window(
    ledger: Ledger, clock: Clock
) -> None:
    """An older one was sealed and forgotten: begun again, empty, it would credit its whole bill."""
    clock.now = NOVEMBER.end + timedelta(days=45)
    await ledger.periods.request_verify(OTHER, NOVEMBER)
    clock.advance(milliseconds=1)
    await ledger.periods.request_verify_all([(OTHER, NOVEMBER.previous()), (OTHER, NOVEMBER)])

    assert await ledger.periods.list_retained(OTHER) == [NOVEMBER]
    assert await ledger.due.time_ms(OTHER, NOVEMBER.previous()) is None


async def test_carry_raises_the_version_of_the_month_it_goes_to(
    ledger: Ledger, clock: Clock
) -> None:
    """That month may be up to date, and would stay so: the carry would not reach its draft."""
    leased = await close_and_commit(ledger)
    await outcomes(ledger, delta("next", at=clock.now))
    following = await ledger.leases.acquire(CUSTOMER, DECEMBER)
    assert following is not None
    await commit_all(ledger, following)
    await ledger.leases.release(following.lease)
    assert (await ledger.periods.snapshot(CUSTOMER, DECEMBER)).up_to_date
    assert await ledger.due.time_ms(CUSTOMER, DECEMBER) is None

    assert await ledger.periods.seal(
        leased.lease, version=leased.snapshot.version, residuals={CPU: Decimal(1)}
    )

    assert not (await ledger.periods.snapshot(CUSTOMER, DECEMBER)).up_to_date
    assert await ledger.due.time_ms(CUSTOMER, DECEMBER) == clock()


async def test_fast_clock_closes_no_period(ledger: Ledger, clock: Clock) -> None:
    """A worker's clock may be wrong; a period ends by the ledger's."""
    shard, ahead = keys.shard_of(CUSTOMER), clock() + 40 * 86_400_000
    assert await ledger.periods.list_ended(shard, ahead, 10) == []
    clock.now = NOVEMBER.end + timedelta(hours=1, milliseconds=-1)
    assert await ledger.periods.list_ended(shard, ahead, 10) == []
    clock.advance(milliseconds=1)
    assert await ledger.periods.list_ended(shard, ahead, 10) == [(CUSTOMER, NOVEMBER)]


async def test_wake_returns_false_for_a_sealed_or_unknown_period(ledger: Ledger) -> None:
    """A sealed or a forgotten one cannot."""
    leased = await close_and_commit(ledger)
    assert await ledger.due.wake(CUSTOMER, NOVEMBER)
    assert await ledger.periods.seal(leased.lease, version=leased.snapshot.version, residuals={})
    assert not await ledger.due.wake(CUSTOMER, NOVEMBER)
    assert not await ledger.due.wake(OTHER, NOVEMBER)
