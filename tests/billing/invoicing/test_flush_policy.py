"""Usage waits until enough money is at stake, or it is old, or somebody asks."""

from dataclasses import replace
from decimal import Decimal

import pytest

from billing.invoicing.flush_policy import AT_ONCE, Schedule, at_stake
from billing.invoicing.snapshot import PeriodState, Snapshot, StripeLine
from billing.usage import CustomerId, LineKey, Period, Price

HOUR = 3_600_000
NOW = 1_764_547_200_000
SCHEDULE = Schedule(max_age=8 * HOUR, stake=2_000, pause=HOUR // 4)
PRICES = {"price_1": Price("price_1", "machine", "usd", Decimal("0.5"))}
MACHINE = LineKey("machine")


def usage(quantity: str, age: int, told: int = 0, customer: str = "cus_1") -> Snapshot:
    """*quantity* machine-seconds at half a cent, the oldest unreported one *age* ms ago."""
    line = StripeLine("il_1", Decimal(told * 2), "price_1", told)
    return Snapshot(
        customer=CustomerId(customer),
        period=Period(2025, 12),
        currency="usd",
        state=PeriodState.OPEN,
        now_ms=NOW,
        epoch="e",
        version="2:b",
        synced="1:a",
        verify_requested="0",
        verify_done="0",
        invoice="in_1",
        invoice_generation=0,
        seq=1,
        ambiguous_ms=0,
        pending_deltas=1,
        oldest_pending_ms=NOW - age,
        synced_ms=NOW - age,
        hold=None,
        stuck=None,
        attempts=0,
        crashes=0,
        totals={MACHINE: Decimal(quantity)},
        prices={MACHINE: "price_1"},
        lines={MACHINE: line} if told else {},
        flight=None,
    )


def test_what_is_at_stake_is_what_stripes_draft_is_wrong_by() -> None:
    """A credit counts as much as a charge; a sum that cancels out over lines does not hide either."""
    assert at_stake(usage("1000", 0, told=400), PRICES) == 100
    assert at_stake(usage("600", 0, told=400), PRICES) == 100
    gone = replace(usage("0", 0, told=400), totals={}, prices={})
    assert at_stake(gone, PRICES) == 400


def test_enough_money_is_told_at_once() -> None:
    """Twenty dollars unreported are worth a call, however young."""
    assert SCHEDULE.wait(usage("4000", age=1), PRICES) == 0


def test_old_usage_is_told_whatever_it_is_worth() -> None:
    """No draft is staler than the maximum age."""
    assert SCHEDULE.wait(usage("1", age=8 * HOUR), PRICES) == 0
    assert SCHEDULE.wait(usage("1", age=8 * HOUR - 1), PRICES) == 1


def test_a_change_below_a_cent_waits() -> None:
    """It would not change a figure on the invoice."""
    assert SCHEDULE.wait(usage("0.9", age=HOUR), PRICES) == 7 * HOUR


@pytest.mark.parametrize(
    ("quantity", "age", "wait"),
    [
        ("2000", HOUR, HOUR),  # half of it came in an hour: the rest takes another
        ("3900", HOUR, HOUR // 4),  # nearly there, but no look before the pause is over
        ("1", HOUR, 7 * HOUR),  # at this pace it takes days: its age will end the wait
    ],
)
def test_the_pace_so_far_says_when_to_look_again(quantity: str, age: int, wait: int) -> None:
    """A customer is looked at a few times for each flush, not every minute."""
    assert SCHEDULE.wait(usage(quantity, age), PRICES) == wait


def test_what_is_due_without_usage_does_not_wait() -> None:
    """A correction of Support's has no age."""
    assert SCHEDULE.wait(replace(usage("1", 0), oldest_pending_ms=None), PRICES) == 0


def test_customers_are_spread_below_the_maximum_age() -> None:
    """All of them start on the first of the month; they must not all come due in one minute."""
    spread = replace(SCHEDULE, jitter=0.2)
    waits = [spread.wait(usage("0.9", 0, customer=f"cus_{n}"), PRICES) for n in range(200)]

    assert max(waits) <= 8 * HOUR
    assert min(waits) >= 8 * HOUR * 0.8
    minutes = [wait // 60_000 for wait in waits]
    assert max(minutes.count(minute) for minute in minutes) <= 10


def test_the_same_wait_ends_at_the_same_moment_however_often_it_is_looked_at() -> None:
    """Otherwise each look would draw its chance again, and the shortest would win."""
    spread = replace(SCHEDULE, jitter=0.2)

    assert spread.wait(usage("0.9", HOUR), PRICES) == spread.wait(usage("0.9", 0), PRICES) - HOUR


def test_by_default_nothing_waits() -> None:
    """A flush that was given no schedule flushes."""
    assert AT_ONCE.wait(usage("0.9", 0), PRICES) == 0
