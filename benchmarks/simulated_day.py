"""A day of many customers as a discrete-event simulation, with the schedule's own code.

Customers use all the time; the real schedule says when each is looked at and flushed; flushes wait in
line for one write each at the rate of one endpoint (``update_lines``, the narrowest), behind customers who
ask. Every so many customers stand for all, on their share of the allowance.
"""

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal

from billing.invoicing.flush_schedule import FlushSchedule
from billing.invoicing.snapshot import PeriodState, Snapshot, StripeLine
from billing.ledger import LedgerPolicy
from billing.usage import CustomerId, LineKey, Period, Price

SAMPLE = 1_000
HOUR = 3_600_000
DAY = 24 * HOUR
TICK = HOUR // 4  # metering reports in batches
ASKS_A_DAY = 0.1  # portal visits and syncBilling, a customer
# What customers spend in a day: half of them less than three dollars, one in a hundred more than 50.
MEDIAN_CENTS, SPREAD = 300, 1.2
SKU = LineKey("usage")
PRICES = {"price": Price("price", SKU, "usd", Decimal(1))}


@dataclass(slots=True)
class Customer:
    """Spends *cents* a millisecond; *told* of it, in whole cents, is at Stripe."""

    id: CustomerId
    cents: float
    synced: int = 0
    oldest: int = 0
    flushes: int = 0
    waiting: bool = False

    def owes(self, now: int) -> int:
        """Whole cents spent since the beginning, as of the last report of usage."""
        return int(self.cents * (now // TICK * TICK))

    def snapshot(self, now: int) -> Snapshot:
        """The ledger's snapshot."""
        line = StripeLine("il", Decimal(self.synced), "price", self.synced)
        return replace(
            BLANK,
            customer=self.id,
            now_ms=now,
            synced_version=str(self.flushes),
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
    synced_version="",
    verify_requested="",
    verify_done="",
    invoice="in",
    invoice_generation=0,
    seq=0,
    in_doubt_since_ms=0,
    pending_deltas=1,
    oldest_pending_ms=0,
    synced_ms=0,
    hold=None,
    parked_reason=None,
    attempts=0,
    crashes=0,
    totals={},
    prices={SKU: "price"},
    lines={},
    batch=None,
)


@dataclass
class Figures:
    """Figures of a day; *ages* in ms and *money* in cents, one of each for every routine flush."""

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


def simulate(size: int, rate: float, schedule: FlushSchedule, first: LedgerPolicy) -> Figures:
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

    schedule: FlushSchedule
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
        self._requests_again(customer, 0)

    def until(self, end: int) -> None:
        """Play the events before *end*."""
        play = {"look": self._consider, "flush": self._flush, "ask": self._request_sync}
        while self.events and self.events[0][0] < end:
            now, _, kind, customer = heapq.heappop(self.events)
            play[kind](customer, now)

    def _consider(self, customer: Customer, now: int) -> None:
        wait = self.schedule.delay_ms(customer.snapshot(now), PRICES)
        if wait:
            self._at(now + wait, "look", customer)
            return
        customer.waiting = True
        self.line_ends = max(self.line_ends, now) + self.cell
        self._at(round(self.line_ends), "flush", customer)

    def _flush(self, customer: Customer, now: int) -> None:
        if customer.waiting:
            self._synced(customer, now, counts=True)

    def _request_sync(self, customer: Customer, now: int) -> None:
        self._requests_again(customer, now)
        if now >= customer.oldest:
            self.line_ends = (
                max(self.line_ends, now) + self.cell
            )  # it goes first, the line moves back
            self._synced(customer, now, counts=False)

    def _synced(self, customer: Customer, now: int, *, counts: bool) -> None:
        owes = customer.owes(now)
        if now >= self.settled:
            self.found.calls += 1
            if counts:
                self.found.ages.append(now - customer.oldest)
                self.found.money.append(owes - customer.synced)
        customer.synced, customer.waiting = owes, False
        customer.flushes += 1
        self._used_again(customer, now)

    def _used_again(self, customer: Customer, now: int) -> None:
        customer.oldest = (now // TICK + 1) * TICK
        nonce = f"{self.dice.random()}"
        self._at(customer.oldest + self.first.interval(nonce), "look", customer)

    def _requests_again(self, customer: Customer, now: int) -> None:
        self._at(now + round(self.dice.expovariate(ASKS_A_DAY / DAY)), "ask", customer)

    def _at(self, moment: int, kind: str, customer: Customer) -> None:
        heapq.heappush(self.events, (moment, next(self.numbers), kind, customer))


def _share(values: list[int], share: float) -> int:
    return sorted(values)[int(len(values) * share)] if values else 0
