"""Usage waits until its amount reaches the threshold or it is old."""

from dataclasses import replace
from decimal import Decimal

import pytest

from billing.invoicing.flush_schedule import IMMEDIATE, FlushSchedule, unsynced_amount
from billing.invoicing.snapshot import PeriodState, Snapshot, StripeLine
from billing.usage import CustomerId, LineKey, Period, Price

HOUR = 3_600_000
NOW = 1_764_547_200_000
SCHEDULE = FlushSchedule(max_age_ms=8 * HOUR, amount_threshold=2_000, min_delay_ms=HOUR // 4)
PRICES = {"price_1": Price("price_1", "machine", "usd", Decimal("0.5"))}
MACHINE = LineKey("machine")


def usage(quantity: str, age: int, sent: int = 0, customer: str = "cus_1") -> Snapshot:
    """*quantity* machine-seconds at half a cent each, the oldest pending one recorded *age* ms ago."""
    line = StripeLine("il_1", Decimal(sent * 2), "price_1", sent)
    return Snapshot(
        customer=CustomerId(customer),
        period=Period(2025, 12),
        currency="usd",
        state=PeriodState.OPEN,
        now_ms=NOW,
        epoch="e",
        version="2:b",
        synced_version="1:a",
        verify_requested="0",
        verify_done="0",
        invoice="in_1",
        invoice_generation=0,
        seq=1,
        in_doubt_since_ms=0,
        pending_deltas=1,
        oldest_pending_ms=NOW - age,
        synced_ms=NOW - age,
        hold=None,
        parked_reason=None,
        attempts=0,
        crashes=0,
        totals={MACHINE: Decimal(quantity)},
        prices={MACHINE: "price_1"},
        lines={MACHINE: line} if sent else {},
        batch=None,
    )


def test_unsynced_amount_is_sum_of_line_differences() -> None:
    """A credit counts like a charge, and differences of several lines do not cancel out."""
    assert unsynced_amount(usage("1000", 0, sent=400), PRICES) == 100
    assert unsynced_amount(usage("600", 0, sent=400), PRICES) == 100
    removed = replace(usage("0", 0, sent=400), totals={}, prices={})
    assert unsynced_amount(removed, PRICES) == 400


def test_amount_above_threshold_is_flushed_at_once() -> None:
    """Twenty dollars are worth a call at any age."""
    assert SCHEDULE.delay_ms(usage("4000", age=1), PRICES) == 0


def test_old_usage_is_flushed_whatever_its_amount() -> None:
    """No draft is older than the maximum age."""
    assert SCHEDULE.delay_ms(usage("1", age=8 * HOUR), PRICES) == 0
    assert SCHEDULE.delay_ms(usage("1", age=8 * HOUR - 1), PRICES) == 1


def test_change_below_a_cent_waits() -> None:
    """It would not change the invoice."""
    assert SCHEDULE.delay_ms(usage("0.9", age=HOUR), PRICES) == 7 * HOUR


@pytest.mark.parametrize(
    ("quantity", "age", "wait"),
    [
        ("2000", HOUR, HOUR),  # half of it came in an hour: the rest takes another
        ("3900", HOUR, HOUR // 4),  # nearly there, but no look before the pause is over
        ("1", HOUR, 7 * HOUR),  # at this pace it takes days: its age will end the wait
    ],
)
def test_delay_is_predicted_from_rate_so_far(quantity: str, age: int, wait: int) -> None:
    """A customer is checked a few times for each flush, not every minute."""
    assert SCHEDULE.delay_ms(usage(quantity, age), PRICES) == wait


def test_due_period_without_usage_does_not_wait() -> None:
    """An adjustment has no age."""
    assert SCHEDULE.delay_ms(replace(usage("1", 0), oldest_pending_ms=None), PRICES) == 0


def test_jitter_spreads_customers_below_maximum_age() -> None:
    """All customers start on the first of the month; they must not all be due in one minute."""
    spread = replace(SCHEDULE, jitter=0.2)
    waits = [spread.delay_ms(usage("0.9", 0, customer=f"cus_{n}"), PRICES) for n in range(200)]

    assert max(waits) <= 8 * HOUR
    assert min(waits) >= 8 * HOUR * 0.8
    minutes = [wait // 60_000 for wait in waits]
    assert max(minutes.count(minute) for minute in minutes) <= 10


def test_jitter_is_stable_between_checks() -> None:
    """Otherwise each check would draw anew, and the shortest delay would win."""
    spread = replace(SCHEDULE, jitter=0.2)

    assert (
        spread.delay_ms(usage("0.9", HOUR), PRICES)
        == spread.delay_ms(usage("0.9", 0), PRICES) - HOUR
    )


def test_default_schedule_flushes_at_once() -> None:
    """A flush without a schedule flushes."""
    assert IMMEDIATE.delay_ms(usage("0.9", 0), PRICES) == 0
