"""Corrections."""

from dataclasses import replace
from decimal import Decimal

import pytest
from redis.asyncio import Redis

from billing.errors import ErrorCode, Refused
from billing.invoicing.snapshot import Flight, Op, OpKind
from billing.ledger import Ledger, NewAdjustment
from billing.usage import CustomerId, adjustment_line
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


async def refusal(ledger: Ledger, adjustment: NewAdjustment, sku: str = "cpu") -> ErrorCode:
    """With what code *adjustment* is refused."""
    with pytest.raises(Refused) as refused:
        await ledger.adjust(adjustment, PRICES[sku])
    return refused.value.code


async def test_a_correction_is_a_line_of_its_own(ledger: Ledger, clock: Clock) -> None:
    """Recorded usage is never rewritten."""
    await outcomes(ledger, delta("a", "7"))
    made = await ledger.adjust(CREDIT, PRICES["cpu"])

    found = await ledger.peek(CUSTOMER, NOVEMBER)
    assert found.totals == {"cpu": Decimal(7), adjustment_line(made.id): Decimal("-2.5")}
    assert found.prices[made.line] == "price_cpu"
    assert (made.id, made.period, made.at_ms, made.by) == ("adj_Test1_1", NOVEMBER, clock(), "ann")
    assert await ledger.due_ms(CUSTOMER, NOVEMBER) is not None
    assert (await ledger.breakdown(CUSTOMER, NOVEMBER, "app"))[""][made.line] == Decimal("-2.5")


async def test_a_correction_repeated_under_its_key_is_made_once(ledger: Ledger) -> None:
    """A person clicks twice; another correction under the same key is a mistake, and said."""
    first = await ledger.adjust(CREDIT, PRICES["cpu"])

    assert await ledger.adjust(CREDIT, PRICES["cpu"]) == first
    assert (
        await refusal(ledger, replace(CREDIT, quantity=Decimal(-3)))
        == ErrorCode.IDEMPOTENCY_CONFLICT
    )
    assert await refusal(ledger, replace(CREDIT, reason="Other")) == ErrorCode.IDEMPOTENCY_CONFLICT
    assert (
        await refusal(ledger, replace(CREDIT, sku="ram"), "ram") == ErrorCode.IDEMPOTENCY_CONFLICT
    )
    assert len((await ledger.peek(CUSTOMER, NOVEMBER)).totals) == 1


async def test_a_month_that_was_cut_is_corrected_until_its_bill_is_final(
    ledger: Ledger, clock: Clock
) -> None:
    """A draft that is held after its month's end says what the customer owes; what was made is answered."""
    await outcomes(ledger, delta("a", "7"))
    await ledger.close(CUSTOMER, NOVEMBER)
    clock.pass_(days=20)
    first = await ledger.adjust(replace(CREDIT, period=NOVEMBER), PRICES["cpu"])
    held = await ledger.acquire(CUSTOMER, NOVEMBER)
    assert held is not None
    await ledger.commit(held.lease, version=None, verify=None, invoice="in_1", lines={}, final=True)

    assert first.period == NOVEMBER
    assert (await ledger.peek(CUSTOMER, NOVEMBER)).totals[first.line] == Decimal("-2.5")
    assert (await ledger.peek(CUSTOMER, DECEMBER)).totals == {}
    late = replace(CREDIT, idempotency_key="key-2", period=NOVEMBER)
    assert await refusal(ledger, late) == ErrorCode.PERIOD_CLOSED
    assert await ledger.adjust(replace(CREDIT, period=NOVEMBER), PRICES["cpu"]) == first
    assert await refusal(ledger, replace(CREDIT, period=DECEMBER)) == ErrorCode.IDEMPOTENCY_CONFLICT


async def test_a_bill_that_may_be_becoming_final_takes_no_correction(
    ledger: Ledger, clock: Clock
) -> None:
    """It would be missing there, and appear on another month's bill unasked."""
    await outcomes(ledger, delta("a", "7"))
    await ledger.close(CUSTOMER, NOVEMBER)
    held = await ledger.acquire(CUSTOMER, NOVEMBER)
    assert held is not None
    finalize = Op(OpKind.FINALIZE, "POST", "/v1/invoices/in_1/finalize", {}, "key")
    flight = Flight(1, held.snapshot.version, "0", clock(), (finalize,))
    correction = replace(CREDIT, period=NOVEMBER)

    assert await ledger.prepare(held.lease, flight)
    assert await refusal(ledger, correction) == ErrorCode.SYNC_IN_PROGRESS
    given_up = {"version": "", "verify": None, "invoice": "in_1", "lines": {}, "doubt": True}
    await ledger.commit(held.lease, **given_up)  # type: ignore[arg-type]
    assert await refusal(ledger, correction) == ErrorCode.SYNC_IN_PROGRESS
    clock.pass_(milliseconds=POLICY.quiet_ms + 1)
    assert await ledger.correctable(CUSTOMER, NOVEMBER) == NOVEMBER
    await ledger.begin_epoch()  # nobody knows what the server has forgotten
    assert await refusal(ledger, correction) == ErrorCode.SYNC_IN_PROGRESS


async def test_a_bill_does_not_become_final_without_a_correction(
    ledger: Ledger, clock: Clock
) -> None:
    """The worker looks again; a request that only changes lines need not."""
    await outcomes(ledger, delta("a", "7"))
    await ledger.close(CUSTOMER, NOVEMBER)
    held = await ledger.acquire(CUSTOMER, NOVEMBER)
    assert held is not None
    await ledger.adjust(replace(CREDIT, period=NOVEMBER), PRICES["cpu"])

    def flight(kind: OpKind) -> Flight:
        assert held is not None
        op = Op(kind, "POST", f"/v1/invoices/in_1/{kind}", {}, "key")
        return Flight(1, held.snapshot.version, "0", clock(), (op,))

    assert not await ledger.prepare(held.lease, flight(OpKind.FINALIZE))
    assert (await ledger.peek(CUSTOMER, NOVEMBER)).flight is None
    assert not await ledger.seal(held.lease, version=held.snapshot.version, residuals={})
    assert await ledger.prepare(held.lease, flight(OpKind.UPDATE_LINES))
    assert await ledger.correctable(CUSTOMER, NOVEMBER) == NOVEMBER


async def test_only_a_month_that_the_ledger_has_is_corrected(ledger: Ledger) -> None:
    """One that has not begun has nothing to correct; one that is long over would be begun anew."""
    future, past = replace(CREDIT, period=DECEMBER), replace(CREDIT, period=NOVEMBER.previous())

    assert await refusal(ledger, future) == ErrorCode.INVALID_INPUT
    assert await refusal(ledger, past) == ErrorCode.PERIOD_CLOSED
    assert await ledger.correctable(CUSTOMER, None) == NOVEMBER
    assert await ledger.periods(CUSTOMER) == []


async def test_a_correction_of_a_month_that_was_cut_has_a_sync_of_its_own(ledger: Ledger) -> None:
    """The current month's would not put it on the draft; a sealed month's would never run."""
    await outcomes(ledger, delta("a", "7"))
    await ledger.close(CUSTOMER, NOVEMBER)
    sync, _ = await ledger.request_sync(CUSTOMER, "SUPPORT", period=NOVEMBER)
    held = await ledger.acquire(CUSTOMER, NOVEMBER)
    assert held is not None
    assert await ledger.seal(held.lease, version=held.snapshot.version, residuals={})
    after, _ = await ledger.request_sync(CUSTOMER, "SUPPORT", period=NOVEMBER)

    assert (sync.period, after.period) == (NOVEMBER, DECEMBER)


@pytest.mark.parametrize("quantity", ["1e15", "0.0000000000001", "NaN", "Infinity"])
async def test_a_correction_is_exact_or_refused(ledger: Ledger, quantity: str) -> None:
    """As usage is."""
    assert (
        await refusal(ledger, replace(CREDIT, quantity=Decimal(quantity)))
        == ErrorCode.INVALID_INPUT
    )


async def test_a_correction_fits_its_customer(ledger: Ledger) -> None:
    """Known, and billed in the price's currency."""
    assert (
        await refusal(ledger, replace(CREDIT, customer=CustomerId("cus_Nobody")))
        == ErrorCode.NOT_FOUND
    )
    assert await refusal(ledger, replace(CREDIT, sku="euro"), "euro") == ErrorCode.INVALID_INPUT


async def test_corrections_are_listed_newest_first(ledger: Ledger) -> None:
    """Page by page, each found by its id."""
    made = [
        await ledger.adjust(replace(CREDIT, idempotency_key=f"{n}"), PRICES["cpu"])
        for n in range(5)
    ]
    first = await ledger.adjustments(CUSTOMER, 3)
    second = await ledger.adjustments(CUSTOMER, 3, first.items[-1].id)

    assert (*first.items, *second.items) == tuple(reversed(made))
    assert (first.has_more, second.has_more) == (True, False)
    assert await ledger.adjustment(made[2].id) == made[2]
    assert await ledger.adjustment("adj_Nobody_1") is None
    assert (await ledger.adjustments(CUSTOMER, 3, "nonsense")).items == ()
