"""What staleness a Stripe allowance buys: ``python -m benchmarks.capacity``, or ``make capacity``.

A discrete-event simulation of a day at the operator's settings. Customers use all the time; the real
schedule says when each is looked at and flushed; flushes wait in line for one write each at the rate of
one endpoint (``update_lines``, the narrowest), behind customers who ask. Every so many customers stand
for all, on their share of the allowance. Writes ``docs/capacity.svg``.
"""

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path

from benchmarks.svg import plot
from billing.budget.policy import Allowance
from billing.ledger import LedgerPolicy
from billing.schedule import Schedule
from billing.settings import Settings
from billing.snapshot import PeriodState, Snapshot, StripeLine
from billing.usage import CustomerId, LineKey, Period, Price

PLOT = Path(__file__).parents[1] / "docs" / "capacity.svg"
SAMPLE = 1_000
HOUR = 3_600_000
DAY = 24 * HOUR
TICK = HOUR // 4  # metering reports in batches
ASKS_A_DAY = 0.1  # portal visits and syncBilling, a customer
# What customers spend in a day: half of them less than three dollars, one in a hundred more than 50.
MEDIAN_CENTS, SPREAD = 300, 1.2
SKU = LineKey("usage")
PRICES = {"price": Price("price", SKU, "usd", Decimal(1), "product")}
SIZES = {"10,000 customers": 10_000, "100,000": 100_000, "1,000,000": 1_000_000}
ALLOWANCES = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0)


def main() -> None:
    """Print both tables and draw the plot."""
    base, first = _schedule(), _first_look()
    granted = Allowance.within(_default("stripe_endpoint_rate"), _default("stripe_share")).rate
    curves: dict[str, list[tuple[float, float]]] = {}
    print("\nAge of usage when Stripe is told, by customers and writes/s that Stripe grants")
    print("(p50 / p99; * more work than the allowance: the line sets the age, not the schedule)\n")
    print("  writes/s " + "".join(f"{name:>18}" for name in SIZES))
    for rate in ALLOWANCES:
        figures = {name: simulate(size, rate, base, first) for name, size in SIZES.items()}
        for name, each in figures.items():
            curves.setdefault(name, []).append((rate, each.p99))
        mark = "  <- the default" if rate == granted else ""
        print(
            f"  {rate:>8.0f} "
            + "".join(f"{_cell(each, base):>18}" for each in figures.values())
            + mark
        )
    _compare_settings(base, first, granted)
    hours = {
        6.0: "6 h",
        12.0: "12 h",
        24.0: "1 day",
        72.0: "3 days",
        168.0: "1 week",
        336.0: "2 weeks",
        720.0: "1 month",
    }
    PLOT.write_text(
        plot(
            "How old usage is when Stripe is told of it (p99)",
            (
                "writes per second to one endpoint",
                {rate: f"{rate:.0f}" for rate in ALLOWANCES},
            ),
            ("of customers who do not ask", hours),
            curves,
            (granted, "the default: 0.8 of Stripe's 25"),
        ),
    )
    print(f"\nThe first table as a plot: {PLOT.relative_to(Path.cwd())}")


def _compare_settings(base: Schedule, first: LedgerPolicy, granted: float) -> None:
    print(f"\n100,000 customers at {granted:.0f} writes/s: what the settings trade\n")
    print(
        "  flush_interval  flush_stake   writes a customer and day   age p50 / p99     unreported p99"
    )
    for hours in (1, 3, 6, 12, 24):
        for dollars in (5, 20, 100):
            schedule = replace(base, max_age=hours * HOUR, stake=dollars * 100)
            found = simulate(100_000, granted, schedule, first)
            print(
                f"  {hours:>11} h  {dollars:>10} $   {found.calls_a_day:>25.1f}   "
                f"{_cell(found, schedule):>16}  {found.money_p99 / 100:>14.0f} $",
            )


def _default(name: str) -> float:
    return float(Settings.model_fields[name].default)


def _schedule() -> Schedule:
    return Schedule(
        max_age=round(_default("flush_interval") * 1000),
        stake=round(_default("flush_stake")),
        pause=round(_default("flush_pause") * 1000),
        jitter=_default("flush_jitter"),
    )


def _first_look() -> LedgerPolicy:
    return LedgerPolicy(round(_default("flush_pause") * 1000), _default("flush_jitter"))


@dataclass(slots=True)
class Customer:
    """Spends *cents* a millisecond; *told* of it, in whole cents, is at Stripe."""

    id: CustomerId
    cents: float
    told: int = 0
    oldest: int = 0
    flushes: int = 0
    waiting: bool = False

    def owes(self, now: int) -> int:
        """Whole cents spent since the beginning, as of the last report of usage."""
        return int(self.cents * (now // TICK * TICK))

    def snapshot(self, now: int) -> Snapshot:
        """What the ledger would show."""
        line = StripeLine("il", Decimal(self.told), "price", self.told)
        return replace(
            BLANK,
            customer=self.id,
            now_ms=now,
            synced=str(self.flushes),
            oldest_pending_ms=self.oldest,
            totals={SKU: Decimal(self.owes(now))},
            lines={SKU: line},
        )


BLANK = Snapshot(
    customer=CustomerId(""),
    period=Period(2026, 11),
    currency="usd",
    state=PeriodState.OPEN,
    now_ms=0,
    epoch="",
    version="",
    synced="",
    verify_requested="",
    verify_done="",
    invoice="in",
    invoice_generation=0,
    seq=0,
    ambiguous_ms=0,
    pending_deltas=1,
    oldest_pending_ms=0,
    synced_ms=0,
    hold=None,
    stuck=None,
    attempts=0,
    crashes=0,
    totals={},
    prices={SKU: "price"},
    lines={},
    flight=None,
)


@dataclass
class Figures:
    """What a day came to; *ages* in ms and *money* in cents, one of each for every flush in turn."""

    customers: int
    ages: list[int] = field(default_factory=list)
    money: list[int] = field(default_factory=list)
    calls: int = 0

    @property
    def calls_a_day(self) -> float:
        """Writes for one customer."""
        return self.calls / self.customers

    @property
    def p50(self) -> float:
        """Hours."""
        return _share(self.ages, 0.5) / HOUR

    @property
    def p99(self) -> float:
        """Hours."""
        return _share(self.ages, 0.99) / HOUR

    @property
    def money_p99(self) -> int:
        """Cents that Stripe's draft lacked."""
        return _share(self.money, 0.99)


def simulate(size: int, rate: float, schedule: Schedule, first: LedgerPolicy) -> Figures:
    """A day of *size* customers on *rate* writes a second, once they have settled into it."""
    dice = random.Random(size)
    sample = min(size, SAMPLE)
    cell = 1000 / (rate * sample / size)
    settled = 2 * DAY + round(
        2 * sample * cell
    )  # everybody has been told twice, even in a long line
    run = Run(schedule, first, cell, settled, dice, Figures(sample))
    for n in range(sample):
        cents = MEDIAN_CENTS * dice.lognormvariate(0, SPREAD) / DAY
        run.begin(Customer(CustomerId(f"cus_{n}"), cents))
    run.until(settled + DAY)
    return run.found


@dataclass
class Run:
    """The events to come, and when the line for Stripe ends; counted from *settled* on; times in ms."""

    schedule: Schedule
    first: LedgerPolicy
    cell: float
    settled: int
    dice: random.Random
    found: Figures
    line_ends: float = 0.0
    events: list[tuple[int, int, str, Customer]] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: iter(range(10**12)))

    def begin(self, customer: Customer) -> None:
        """A customer starts some time in the first half day."""
        self._used_again(customer, self.dice.randrange(DAY // 2))
        self._asks_again(customer, 0)

    def until(self, end: int) -> None:
        """Play the events before *end*."""
        play = {"look": self._look, "flush": self._flush, "ask": self._ask}
        while self.events and self.events[0][0] < end:
            now, _, kind, customer = heapq.heappop(self.events)
            play[kind](customer, now)

    def _look(self, customer: Customer, now: int) -> None:
        wait = self.schedule.wait(customer.snapshot(now), PRICES)
        if wait:
            self._at(now + wait, "look", customer)
            return
        customer.waiting = True
        self.line_ends = max(self.line_ends, now) + self.cell
        self._at(round(self.line_ends), "flush", customer)

    def _flush(self, customer: Customer, now: int) -> None:
        if customer.waiting:
            self._told(customer, now, counts=True)

    def _ask(self, customer: Customer, now: int) -> None:
        self._asks_again(customer, now)
        if now >= customer.oldest:
            self.line_ends = (
                max(self.line_ends, now) + self.cell
            )  # it goes first, the line moves back
            self._told(customer, now, counts=False)

    def _told(self, customer: Customer, now: int, *, counts: bool) -> None:
        owes = customer.owes(now)
        if now >= self.settled:
            self.found.calls += 1
            if counts:
                self.found.ages.append(now - customer.oldest)
                self.found.money.append(owes - customer.told)
        customer.told, customer.waiting = owes, False
        customer.flushes += 1
        self._used_again(customer, now)

    def _used_again(self, customer: Customer, now: int) -> None:
        customer.oldest = (now // TICK + 1) * TICK
        nonce = f"{self.dice.random()}"
        self._at(customer.oldest + self.first.interval(nonce), "look", customer)

    def _asks_again(self, customer: Customer, now: int) -> None:
        self._at(now + round(self.dice.expovariate(ASKS_A_DAY / DAY)), "ask", customer)

    def _at(self, moment: int, kind: str, customer: Customer) -> None:
        heapq.heappush(self.events, (moment, next(self.numbers), kind, customer))


def _share(values: list[int], share: float) -> int:
    return sorted(values)[int(len(values) * share)] if values else 0


def _cell(found: Figures, schedule: Schedule) -> str:
    late = "*" if found.p99 * HOUR > schedule.max_age + TICK else " "
    return f"{found.p50:.1f} / {found.p99:.1f} h{late}"


if __name__ == "__main__":
    main()
