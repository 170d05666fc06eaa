"""Adjustments."""

from dataclasses import replace
from decimal import Decimal

import pytest
from redis.asyncio import Redis

from billing.errors import ErrorCode, Refused
from billing.invoicing.request_batch import RequestBatch, RequestKind, StripeRequest
from billing.ledger import Ledger, NewAdjustment
from billing.redis_clients import awaited
from billing.usage import CustomerId, adjustment_line_key
from tests.support.ledger import (
    CUSTOMER,
    DECEMBER,
    NOVEMBER,
    POLICY,
    PRICES,
    Clock,
    delta,
    open_ledger,
    outcomes,
)

CREDIT = NewAdjustment(CUSTOMER, "cpu", Decimal("-2.50"), "Outage of 3 November", "ann", "key-1")


@pytest.fixture
def clock() -> Clock:
    """The middle of November 2026."""
    return Clock()


@pytest.fixture
async def ledger(redis: Redis, clock: Clock) -> Ledger:
    """An empty ledger."""
    return await open_ledger(redis, clock)


async def refusal_code(ledger: Ledger, adjustment: NewAdjustment, sku: str = "cpu") -> ErrorCode:
    """Return the code with which *adjustment* is refused."""
    with pytest.raises(Refused) as refused:
        await ledger.adjustments.create(adjustment, PRICES[sku])
    return refused.value.code


async def test_adjustment_has_its_own_line(ledger: Ledger, clock: Clock) -> None:
    """Recorded usage is never rewritten."""
    await outcomes(ledger, delta("a", "7"))
    created = await ledger.adjustments.create(CREDIT, PRICES["cpu"])

    found = await ledger.periods.snapshot(CUSTOMER, NOVEMBER)
    assert found.totals == {"cpu": Decimal(7), adjustment_line_key(created.id): Decimal("-2.5")}
    assert found.prices[created.line] == "price_cpu"
    assert (created.id, created.period, created.at_ms, created.by) == (
        "adj_Test1_1",
        NOVEMBER,
        clock(),
        "ann",
    )
    assert await ledger.due.time_ms(CUSTOMER, NOVEMBER) is not None
    assert (await ledger.usage.breakdown(CUSTOMER, NOVEMBER, "app"))[""][created.line] == Decimal(
        "-2.5"
    )


async def test_adjustments_of_a_customer_take_one_round_trip(ledger: Ledger, redis: Redis) -> None:
    """A bill of two hundred corrections is priced without two hundred commands."""
    made = [
        await ledger.adjustments.create(replace(CREDIT, idempotency_key=f"{n}"), PRICES["cpu"])
        for n in range(5)
    ]
    await awaited(redis.config_resetstat())
    found = await ledger.adjustments.get_many(CUSTOMER, [*(a.id for a in made), "adj_Test1_9"])

    assert found == made
    commands = await redis.info("commandstats")
    assert {name: entry["calls"] for name, entry in commands.items() if "hmget" in name} == {
        "cmdstat_hmget": 1
    }
    assert await ledger.adjustments.get_many(CUSTOMER, []) == []


async def test_adjustment_is_created_once_per_idempotency_key(ledger: Ledger) -> None:
    """A repeated request returns the first adjustment; a different one under the same key is refused."""
    first = await ledger.adjustments.create(CREDIT, PRICES["cpu"])

    assert await ledger.adjustments.create(CREDIT, PRICES["cpu"]) == first
    assert (
        await refusal_code(ledger, replace(CREDIT, quantity=Decimal(-3)))
        == ErrorCode.IDEMPOTENCY_CONFLICT
    )
    assert (
        await refusal_code(ledger, replace(CREDIT, reason="Other"))
        == ErrorCode.IDEMPOTENCY_CONFLICT
    )
    assert (
        await refusal_code(ledger, replace(CREDIT, sku="ram"), "ram")
        == ErrorCode.IDEMPOTENCY_CONFLICT
    )
    assert len((await ledger.periods.snapshot(CUSTOMER, NOVEMBER)).totals) == 1


async def test_closed_month_accepts_adjustments_until_its_bill_is_final(
    ledger: Ledger, clock: Clock
) -> None:
    """A draft that is open after its month can be adjusted; a repeated key still returns its adjustment."""
    await outcomes(ledger, delta("a", "7"))
    await ledger.periods.close(CUSTOMER, NOVEMBER)
    clock.advance(days=20)
    first = await ledger.adjustments.create(replace(CREDIT, period=NOVEMBER), PRICES["cpu"])
    leased = await ledger.leases.acquire(CUSTOMER, NOVEMBER)
    assert leased is not None
    await ledger.leases.commit(
        leased.lease, version=None, verify=None, invoice="in_1", lines={}, final=True
    )

    assert first.period == NOVEMBER
    assert (await ledger.periods.snapshot(CUSTOMER, NOVEMBER)).totals[first.line] == Decimal("-2.5")
    assert (await ledger.periods.snapshot(CUSTOMER, DECEMBER)).totals == {}
    late = replace(CREDIT, idempotency_key="key-2", period=NOVEMBER)
    assert await refusal_code(ledger, late) == ErrorCode.PERIOD_CLOSED
    assert await ledger.adjustments.create(replace(CREDIT, period=NOVEMBER), PRICES["cpu"]) == first
    assert (
        await refusal_code(ledger, replace(CREDIT, period=DECEMBER))
        == ErrorCode.IDEMPOTENCY_CONFLICT
    )


async def test_bill_that_may_become_final_accepts_no_adjustment(
    ledger: Ledger, clock: Clock
) -> None:
    """The final bill would lack it, and it would appear on another month's bill instead."""
    await outcomes(ledger, delta("a", "7"))
    await ledger.periods.close(CUSTOMER, NOVEMBER)
    leased = await ledger.leases.acquire(CUSTOMER, NOVEMBER)
    assert leased is not None
    finalize = StripeRequest(RequestKind.FINALIZE, "POST", "/v1/invoices/in_1/finalize", {}, "key")
    flight = RequestBatch(1, leased.snapshot.version, "0", clock(), (finalize,))
    adjustment = replace(CREDIT, period=NOVEMBER)

    assert await ledger.leases.prepare(leased.lease, flight)
    assert await refusal_code(ledger, adjustment) == ErrorCode.SYNC_IN_PROGRESS
    given_up = {"version": "", "verify": None, "invoice": "in_1", "lines": {}, "in_doubt": True}
    await ledger.leases.commit(leased.lease, **given_up)  # type: ignore[arg-type]
    assert await refusal_code(ledger, adjustment) == ErrorCode.SYNC_IN_PROGRESS
    clock.advance(milliseconds=POLICY.quiet_ms + 1)
    assert await ledger.adjustments.adjustable_period(CUSTOMER, NOVEMBER) == NOVEMBER
    await ledger.begin_epoch()  # the server may have lost a request
    assert await refusal_code(ledger, adjustment) == ErrorCode.SYNC_IN_PROGRESS


async def test_finalization_waits_for_a_new_adjustment(ledger: Ledger, clock: Clock) -> None:
    """The worker plans again; a request that only changes lines is not affected."""
    await outcomes(ledger, delta("a", "7"))
    await ledger.periods.close(CUSTOMER, NOVEMBER)
    leased = await ledger.leases.acquire(CUSTOMER, NOVEMBER)
    assert leased is not None
    await ledger.adjustments.create(replace(CREDIT, period=NOVEMBER), PRICES["cpu"])

    def flight(kind: RequestKind) -> RequestBatch:
        assert leased is not None
        op = StripeRequest(kind, "POST", f"/v1/invoices/in_1/{kind}", {}, "key")
        return RequestBatch(1, leased.snapshot.version, "0", clock(), (op,))

    assert not await ledger.leases.prepare(leased.lease, flight(RequestKind.FINALIZE))
    assert (await ledger.periods.snapshot(CUSTOMER, NOVEMBER)).batch is None
    assert not await ledger.periods.seal(
        leased.lease, version=leased.snapshot.version, residuals={}
    )
    assert await ledger.leases.prepare(leased.lease, flight(RequestKind.UPDATE_LINES))
    assert await ledger.adjustments.adjustable_period(CUSTOMER, NOVEMBER) == NOVEMBER


async def test_adjustment_requires_a_month_in_the_ledger(ledger: Ledger) -> None:
    """A future month has no bill to adjust; a month that is long over would begin anew."""
    future, past = replace(CREDIT, period=DECEMBER), replace(CREDIT, period=NOVEMBER.previous())

    assert await refusal_code(ledger, future) == ErrorCode.INVALID_INPUT
    assert await refusal_code(ledger, past) == ErrorCode.PERIOD_CLOSED
    assert await ledger.adjustments.adjustable_period(CUSTOMER, None) == NOVEMBER
    assert await ledger.periods.list_retained(CUSTOMER) == []


async def test_sync_of_closed_month_is_separate_from_the_current_month(ledger: Ledger) -> None:
    """A sync of the current month would not update the draft; a sync of a sealed month would never run."""
    await outcomes(ledger, delta("a", "7"))
    await ledger.periods.close(CUSTOMER, NOVEMBER)
    sync, _ = await ledger.syncs.request(CUSTOMER, "SUPPORT", period=NOVEMBER)
    leased = await ledger.leases.acquire(CUSTOMER, NOVEMBER)
    assert leased is not None
    assert await ledger.periods.seal(leased.lease, version=leased.snapshot.version, residuals={})
    after, _ = await ledger.syncs.request(CUSTOMER, "SUPPORT", period=NOVEMBER)

    assert (sync.period, after.period) == (NOVEMBER, DECEMBER)


@pytest.mark.parametrize("quantity", ["1e15", "0.0000000000001", "NaN", "Infinity"])
async def test_adjustment_quantity_out_of_range_is_refused(ledger: Ledger, quantity: str) -> None:
    """The same limits apply as for usage."""
    assert (
        await refusal_code(ledger, replace(CREDIT, quantity=Decimal(quantity)))
        == ErrorCode.INVALID_INPUT
    )


async def test_adjustment_requires_known_customer_and_currency(ledger: Ledger) -> None:
    """The customer is registered and billed in the price's currency."""
    assert (
        await refusal_code(ledger, replace(CREDIT, customer=CustomerId("cus_Nobody")))
        == ErrorCode.NOT_FOUND
    )
    assert (
        await refusal_code(ledger, replace(CREDIT, sku="euro"), "euro") == ErrorCode.INVALID_INPUT
    )


async def test_adjustments_are_paged_newest_first(ledger: Ledger) -> None:
    """Each one is also found by its id."""
    created = [
        await ledger.adjustments.create(replace(CREDIT, idempotency_key=f"{n}"), PRICES["cpu"])
        for n in range(5)
    ]
    first = await ledger.adjustments.page(CUSTOMER, 3)
    second = await ledger.adjustments.page(CUSTOMER, 3, first.items[-1].id)

    assert (*first.items, *second.items) == tuple(reversed(created))
    assert (first.has_more, second.has_more) == (True, False)
    assert await ledger.adjustments.get(created[2].id) == created[2]
    assert await ledger.adjustments.get("adj_Nobody_1") is None
    assert (await ledger.adjustments.page(CUSTOMER, 3, "nonsense")).items == ()
