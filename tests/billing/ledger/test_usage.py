"""Recording of usage: once per delta, exactly, in the right period, at the right price."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from redis.asyncio import Redis

from billing.invoicing.request_batch import RequestBatch
from billing.ledger import DeltaOutcome, Ledger, LedgerPolicy, NewAdjustment, keys
from billing.ledger.quantities import QuantityOutOfRange, to_fixed_point
from billing.ledger.usage import CurrencySource
from billing.usage import CustomerId, LineKey, Price, UsageDelta, carried_line_key
from tests.support.ledger import (
    CUSTOMER,
    DECEMBER,
    MIDDLE,
    NOVEMBER,
    OTHER,
    PRICES,
    Clock,
    acquire_lease,
    delta,
    open_ledger,
    outcomes,
)

ACCEPTED, DUPLICATE, CONFLICT = DeltaOutcome.ACCEPTED, DeltaOutcome.DUPLICATE, DeltaOutcome.CONFLICT
WRONG_CURRENCY = DeltaOutcome.WRONG_CURRENCY


@pytest.fixture
def clock() -> Clock:
    """The middle of November 2026."""
    return Clock()


@pytest.fixture
async def ledger(redis: Redis, clock: Clock) -> Ledger:
    """An empty ledger."""
    return await open_ledger(redis, clock)


async def test_delta_sent_twice_counts_once(ledger: Ledger) -> None:
    """Producers retry; customers must not pay for it."""
    first = await outcomes(ledger, delta("a", "1.5"), delta("a", "1.5"))
    again = await outcomes(ledger, delta("a", "1.50"))

    assert first + again == [ACCEPTED, DUPLICATE, DUPLICATE]
    assert (await ledger.periods.snapshot(CUSTOMER, NOVEMBER)).totals == {"cpu": Decimal("1.5")}


@pytest.mark.parametrize(
    "other",
    [
        delta("a", "2"),
        delta("a", sku="ram"),
        delta("a", at=MIDDLE + timedelta(microseconds=1)),
        delta("a", app="web"),
        delta("a", region="fra"),
        delta("a", organization="acme"),
    ],
)
async def test_id_with_different_content_is_a_conflict(ledger: Ledger, other: UsageDelta) -> None:
    """The first delta stays; any difference under the same id is the producer's error."""
    assert await outcomes(ledger, delta("a"), other) == [ACCEPTED, CONFLICT]
    snapshot = await ledger.periods.snapshot(CUSTOMER, NOVEMBER)
    assert (snapshot.totals, snapshot.conflicts) == ({"cpu": Decimal(1)}, 1)


async def test_rejected_delta_does_not_affect_its_batch(ledger: Ledger, clock: Clock) -> None:
    """Each result has the position of its delta."""
    results = await ledger.usage.record(
        [
            delta("old", at=MIDDLE - timedelta(days=36)),
            delta("good", "2"),
            delta("early", at=MIDDLE + timedelta(minutes=6)),
            delta("huge", "1e15"),
            delta("fine", "0.0000000000001"),
            delta("euro", sku="euro"),
            delta("unknown", customer=CustomerId("cus_Nobody")),
            delta("other", "3", customer=OTHER),
            delta("soon", "4", at=MIDDLE + timedelta(minutes=5)),
        ],
        PRICES,
    )

    assert [result.outcome for result in results] == [
        DeltaOutcome.TOO_OLD,
        ACCEPTED,
        DeltaOutcome.IN_FUTURE,
        DeltaOutcome.OUT_OF_RANGE,
        DeltaOutcome.OUT_OF_RANGE,
        DeltaOutcome.WRONG_CURRENCY,
        DeltaOutcome.UNKNOWN_CUSTOMER,
        ACCEPTED,
        ACCEPTED,
    ]
    assert results[1].period == NOVEMBER
    assert (await ledger.periods.snapshot(CUSTOMER, NOVEMBER)).totals == {"cpu": Decimal(6)}
    assert (await ledger.periods.snapshot(OTHER, NOVEMBER)).totals == {"cpu": Decimal(3)}


async def test_rejected_delta_may_be_sent_again(ledger: Ledger, clock: Clock) -> None:
    """Only ids of counted deltas are remembered."""
    early = delta("early", at=MIDDLE + timedelta(hours=1))
    assert await outcomes(ledger, early) == [DeltaOutcome.IN_FUTURE]

    clock.advance(hours=1)

    assert await outcomes(ledger, early) == [ACCEPTED]


async def test_delta_that_takes_a_total_out_of_range_is_rejected(ledger: Ledger) -> None:
    """15 digits before the point, for a line and each part of its breakdown, in any order."""
    most = "999999999999999.999999999999"
    assert await outcomes(
        ledger,
        delta("a", most, app="web"),
        delta("b", "0.000000000001"),
        delta("c", f"-{most}", app="db"),
        delta("d", "0.000000000001", app="web"),
        delta("e", f"-{most}", app="db"),
        delta("f", "-0.5"),
        delta("g", "0.25"),
    ) == [
        ACCEPTED,
        DeltaOutcome.OUT_OF_RANGE,
        ACCEPTED,
        DeltaOutcome.OUT_OF_RANGE,
        DeltaOutcome.OUT_OF_RANGE,
        ACCEPTED,
        ACCEPTED,
    ]
    assert (await ledger.periods.snapshot(CUSTOMER, NOVEMBER)).totals == {"cpu": Decimal("-0.25")}
    assert await ledger.usage.breakdown(CUSTOMER, NOVEMBER, "app") == {
        "web": {"cpu": Decimal(most)},
        "db": {"cpu": -Decimal(most)},
        "": {"cpu": Decimal("-0.25")},
    }


@given(st.decimals(allow_nan=True, allow_infinity=True))
def test_only_exact_quantities_are_accepted(quantity: Decimal) -> None:
    """15 digits and 12 places; any other quantity is rejected before it can be rounded."""
    assume(quantity)
    fits = (
        quantity.is_finite()
        and -12 <= quantity.adjusted() < 15
        and (Fraction(quantity) * 10**12).denominator == 1
    )
    try:
        hi, lo = to_fixed_point(quantity)
    except QuantityOutOfRange:
        assert not fits
    else:
        assert fits
        assert Fraction(hi) + Fraction(lo, 10**12) == Fraction(quantity)
        assert 0 <= lo < 10**12


async def test_breakdown_by_app_region_and_organization(ledger: Ledger) -> None:
    """Usage without a value is under the empty name, so that the parts add up to the total."""
    await outcomes(
        ledger,
        delta("a", "1.25", app="web", region="fra"),
        delta("b", "2", app="web", region="lhr", organization="acme"),
        delta("c", "-0.75", "ram", app="db"),
        delta("d", "4"),
    )

    assert await ledger.usage.breakdown(CUSTOMER, NOVEMBER, "app") == {
        "web": {"cpu": Decimal("3.25")},
        "db": {"ram": Decimal("-0.75")},
        "": {"cpu": Decimal(4)},
    }
    assert (await ledger.usage.breakdown(CUSTOMER, NOVEMBER, "region"))["lhr"] == {
        "cpu": Decimal(2)
    }
    assert (await ledger.usage.breakdown(CUSTOMER, NOVEMBER, "organization"))["acme"] == {
        "cpu": Decimal(2)
    }


async def test_usage_belongs_to_its_month_in_utc(ledger: Ledger, clock: Clock) -> None:
    """Independent of the producer's offset."""
    clock.now = datetime(2026, 12, 1, 0, 59, tzinfo=UTC)
    offset = datetime.fromisoformat("2026-12-01T01:30:00+02:00")

    await outcomes(ledger, delta("a", at=offset), delta("b", "2", at=clock.now))

    assert (await ledger.periods.snapshot(CUSTOMER, NOVEMBER)).totals == {"cpu": Decimal(1)}
    assert (await ledger.periods.snapshot(CUSTOMER, DECEMBER)).totals == {"cpu": Decimal(2)}
    assert await ledger.periods.list_retained(CUSTOMER) == [NOVEMBER, DECEMBER]


async def test_usage_of_a_closed_period_is_carried_to_the_next(
    ledger: Ledger,
) -> None:
    """It is billed late, with its original month."""
    await outcomes(ledger, delta("a"))
    await ledger.periods.close(CUSTOMER, NOVEMBER)

    late = (await ledger.usage.record([delta("b", "2", app="web")], PRICES))[0]

    assert (late.outcome, late.period) == (ACCEPTED, DECEMBER)
    assert (await ledger.periods.snapshot(CUSTOMER, NOVEMBER)).totals == {"cpu": Decimal(1)}
    assert (await ledger.periods.snapshot(CUSTOMER, DECEMBER)).totals == {
        carried_line_key("cpu", NOVEMBER): Decimal(2)
    }
    assert await ledger.periods.current(CUSTOMER) == DECEMBER


@pytest.mark.parametrize("has_usage", [True, False], ids=["closed", "without usage"])
async def test_ended_month_accepts_no_usage_after_the_settle_window(
    ledger: Ledger, clock: Clock, has_usage: bool
) -> None:
    """Usage is then late, and cannot begin the month, if the customer had a bill for it or not."""
    ids = ["b"] if has_usage else []
    await outcomes(ledger, *(delta(delta_id) for delta_id in ids))
    clock.now = NOVEMBER.end + timedelta(hours=1, milliseconds=-1)
    in_time = (await ledger.usage.record([delta("a", at=MIDDLE, customer=OTHER)], PRICES))[0]
    clock.advance(milliseconds=1)
    for customer, period in await ledger.periods.list_ended(
        keys.shard_of(CUSTOMER), clock() - 3_600_000, 10
    ):
        await ledger.periods.close(customer, period)

    late = await ledger.usage.record(
        [delta("a", "2", app="web"), delta("now", at=clock.now)], PRICES
    )

    assert in_time.period == NOVEMBER
    assert [result.period for result in late] == [DECEMBER, DECEMBER]
    assert (await ledger.periods.snapshot(CUSTOMER, DECEMBER)).totals == {
        "cpu": Decimal(1),
        carried_line_key("cpu", NOVEMBER): Decimal(2),
    }
    assert await ledger.periods.list_retained(CUSTOMER) == ([NOVEMBER] if has_usage else []) + [
        DECEMBER
    ]


async def test_delta_sent_before_and_after_the_settle_window_counts_once(
    ledger: Ledger, clock: Clock
) -> None:
    """Its target period changes meanwhile, but not its id."""
    clock.now = NOVEMBER.end + timedelta(minutes=59)
    in_time, late = delta("a"), delta("b")
    assert await outcomes(ledger, in_time) == [ACCEPTED]
    clock.advance(hours=1)
    await ledger.periods.close(CUSTOMER, NOVEMBER)

    assert await outcomes(ledger, in_time, late, late) == [DUPLICATE, ACCEPTED, DUPLICATE]
    assert await outcomes(ledger, delta("a", "2")) == [CONFLICT]
    assert (await ledger.periods.snapshot(CUSTOMER, NOVEMBER)).totals == {"cpu": Decimal(1)}
    assert (await ledger.periods.snapshot(CUSTOMER, DECEMBER)).totals == {
        carried_line_key("cpu", NOVEMBER): Decimal(1)
    }


async def test_late_usage_has_the_price_of_its_own_period(ledger: Ledger) -> None:
    """A new price applies to new months only; the first usage pins a month's price."""
    dearer = {"cpu": Price("price_dearer", "cpu", "usd", Decimal(9))}
    await outcomes(ledger, delta("a"))
    await ledger.usage.record([delta("b")], dearer)
    await ledger.periods.close(CUSTOMER, NOVEMBER)
    await ledger.usage.record([delta("c")], dearer)

    assert (await ledger.periods.snapshot(CUSTOMER, NOVEMBER)).prices == {
        LineKey("cpu"): "price_cpu"
    }
    assert (await ledger.periods.snapshot(CUSTOMER, DECEMBER)).prices == {
        carried_line_key("cpu", NOVEMBER): "price_cpu"
    }


async def test_id_is_remembered_for_six_weeks_at_least(ledger: Ledger, clock: Clock) -> None:
    """Longer than usage is accepted, from any time within a generation."""
    for week in range(14):
        now = delta(f"week{week}", at=clock.now)
        assert await outcomes(ledger, now) == [ACCEPTED]
        clock.advance(days=34)
        assert await outcomes(ledger, now) == [DUPLICATE]
        clock.advance(days=8)
        assert await outcomes(ledger, now) == [DUPLICATE]
        clock.advance(days=-35)


async def test_ids_are_stored_in_small_buckets_that_expire(ledger: Ledger, redis: Redis) -> None:
    """Small hashes take a third of the memory, and each one must expire."""
    many = [delta(f"id-{n}", "0.1") for n in range(3000)]
    assert set(await outcomes(ledger, *many)) == {ACCEPTED}
    assert set(await outcomes(ledger, *many)) == {DUPLICATE}

    buckets = [key async for key in redis.scan_iter(f"{keys.customer(CUSTOMER)}:ids:*")]
    sizes = [await redis.hlen(key) for key in buckets]
    assert sum(sizes) == 3000
    assert max(sizes) <= 128
    assert {await redis.object("ENCODING", key) for key in buckets} == {b"listpack"}
    assert all([0 < await redis.pttl(key) <= 84 * 86_400_000 for key in buckets])
    assert (await ledger.periods.snapshot(CUSTOMER, NOVEMBER)).totals == {"cpu": Decimal(300)}


async def test_recorded_usage_is_due_after_the_interval(ledger: Ledger, clock: Clock) -> None:
    """Recording and marking due are one step; later usage does not delay it."""
    await outcomes(ledger, delta("a"))
    due = clock() + 900_000
    clock.advance(minutes=5)
    await outcomes(ledger, delta("b"))

    snapshot = await ledger.periods.snapshot(CUSTOMER, NOVEMBER)
    assert await ledger.due.time_ms(CUSTOMER, NOVEMBER) == due
    assert (snapshot.pending_deltas, snapshot.oldest_pending_ms) == (2, due - 900_000)
    assert snapshot.version.startswith("2:")
    assert not snapshot.up_to_date


async def test_interval_is_spread_by_the_jitter(redis: Redis, clock: Clock) -> None:
    """Or all customers of a full hour would be flushed in the same second."""
    policy = LedgerPolicy(flush_interval_ms=1000, flush_jitter=0.2)
    ledger = await open_ledger(redis, clock, policy)
    intervals = {policy.interval(f"{n}") for n in range(2000)}
    assert (min(intervals), max(intervals)) == (800, 1200)
    await outcomes(ledger, delta("a"))
    assert 800 <= (await ledger.due.time_ms(CUSTOMER, NOVEMBER) or 0) - clock() <= 1200


async def currency_of(ledger: Ledger) -> str:
    """Return the registered currency of `CUSTOMER`."""
    return (await ledger.usage.registered_currencies([CUSTOMER]))[CUSTOMER]


async def test_currency_of_a_price_never_replaces_a_registered_one(ledger: Ledger) -> None:
    """A customer's invoices have one currency."""
    await ledger.usage.register_customer(CUSTOMER, "EUR")
    await ledger.usage.register_customer(CustomerId("cus_Yen"), "JPY")

    known = await ledger.usage.registered_currencies(
        [CUSTOMER, CustomerId("cus_Nobody"), CustomerId("cus_Yen")]
    )
    assert known == {CUSTOMER: "usd", "cus_Yen": "jpy"}
    assert await ledger.usage.registered_currencies([]) == {}


async def test_currency_at_stripe_replaces_that_of_the_first_delta(
    ledger: Ledger, redis: Redis
) -> None:
    """One delta of a SKU in another currency must not refuse all later usage; it was taken off again."""
    register = ledger.usage.register_customer
    assert await outcomes(ledger, delta("a", "1.5", app="web"), delta("b", "-1.5", app="api")) == [
        ACCEPTED,
        ACCEPTED,
    ]
    assert not await register(CUSTOMER, "eur")
    assert await register(CUSTOMER, "EUR", CurrencySource.STRIPE)

    assert await currency_of(ledger) == "eur"
    assert await outcomes(ledger, delta("c"), delta("d", sku="euro")) == [WRONG_CURRENCY, ACCEPTED]
    assert (await ledger.periods.snapshot(CUSTOMER, NOVEMBER)).totals == {"euro": Decimal(1)}
    assert await ledger.usage.breakdown(CUSTOMER, NOVEMBER, "app") == {"": {"euro": Decimal(1)}}
    assert await outcomes(ledger, delta("a", "1.5", app="web")) == [DUPLICATE]


async def test_sku_is_priced_anew_in_the_new_currency(ledger: Ledger) -> None:
    """A line that netted to nothing must not pin a price of the old currency."""
    await outcomes(ledger, delta("a", "1"), delta("b", "-1"))
    await ledger.usage.register_customer(CUSTOMER, "eur", CurrencySource.STRIPE)
    price = Price("price_cpu_eur", "cpu", "eur", Decimal(3))
    await ledger.usage.record([delta("c", "2")], {"cpu": price})

    snapshot = await ledger.periods.snapshot(CUSTOMER, NOVEMBER)
    assert (snapshot.currency, snapshot.prices) == ("eur", {"cpu": "price_cpu_eur"})


@pytest.mark.parametrize("obstacle", ["usage", "adjustment", "invoice", "batch", "lease", "doubt"])
async def test_currency_stays_while_something_is_counted_or_billed_in_it(
    ledger: Ledger, clock: Clock, obstacle: str
) -> None:
    """Euros are never shown or billed as dollars."""
    if obstacle == "usage":
        await outcomes(ledger, delta("a", "1"))
    elif obstacle == "adjustment":
        new = NewAdjustment(CUSTOMER, "cpu", Decimal(1), "r", "b", "k")
        await ledger.adjustments.create(new, PRICES["cpu"])
    else:
        leased = await acquire_lease(ledger)
        if obstacle == "invoice":
            await ledger.leases.commit(
                leased.lease, version=None, verify=None, invoice="in_1", lines={}
            )
        if obstacle == "doubt":  # a draft may still be created
            await ledger.leases.commit(
                leased.lease, version="", verify=None, invoice=None, lines={}, in_doubt=True
            )
        if obstacle == "batch":
            await ledger.leases.prepare(leased.lease, RequestBatch(1, "", "", 0, ()))
        if obstacle != "lease":
            clock.advance(hours=1)

    for source in (CurrencySource.STRIPE, CurrencySource.OPERATOR):
        assert not await ledger.usage.register_customer(CUSTOMER, "eur", source)
    assert await currency_of(ledger) == "usd"


async def test_currency_set_by_an_operator_outranks_stripes(ledger: Ledger) -> None:
    """A draft that the gateway made by mistake gave the customer that currency at Stripe."""
    assert await ledger.usage.register_customer(CUSTOMER, "eur", CurrencySource.OPERATOR)
    assert not await ledger.usage.register_customer(CUSTOMER, "usd", CurrencySource.STRIPE)
    assert await currency_of(ledger) == "eur"
    assert await ledger.usage.register_customer(CUSTOMER, "usd", CurrencySource.OPERATOR)


@pytest.mark.parametrize(
    "policy",
    [{"usage_max_age_ms": 43 * 86_400_000}, {"retention_ms": 60 * 86_400_000}],
)
def test_policy_that_would_count_twice_is_refused(policy: dict[str, int]) -> None:
    """An id must outlive the acceptance of its delta, a sealed period that of its late usage."""
    with pytest.raises(ValueError, match=r"counted twice|open it anew"):
        LedgerPolicy(**policy)
