"""Books of what the ledger has counted: each unit, the month it counts in, and the price it was counted at."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from billing.ledger import Adjustment, DeltaOutcome
from billing.ledger.usage import RecordResult
from billing.usage import CustomerId, Period, Price, UsageDelta

Sums = defaultdict[tuple[CustomerId, str, str], Decimal]
"""By customer, SKU (or line of a correction) and price id."""
Credits = defaultdict[tuple[str, str], Decimal]
"""By customer and SKU."""
Place = tuple[str, Period, str]
Record = Callable[[Sequence[UsageDelta], Mapping[str, Price]], Awaitable[list[RecordResult]]]


@dataclass(frozen=True)
class Entry:
    """One delta or correction, counted at *at_ms* in *month*; *line* is the key of its line there."""

    id: str
    customer: CustomerId
    sku: str
    month: Period
    line: str
    price: str
    quantity: Decimal
    at_ms: int

    @property
    def place(self) -> Place:
        """The delta or correction, and where it counts."""
        return self.id, self.month, self.line


@dataclass
class Page:
    """What the ledger has: *entries* by id of the delta or correction, *pins* the price of each line.

    *months* are those that it has had, of each customer, forgotten ones included.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    pins: dict[tuple[CustomerId, Period, str], str] = field(default_factory=dict)
    months: set[tuple[str, Period]] = field(default_factory=set)

    def copied(self) -> "Page":
        """A copy, as a backup has it."""
        return Page(dict(self.entries), dict(self.pins), set(self.months))


class Books:
    """*page* is what the ledger has now, *ever* all that it has ever acknowledged, by id."""

    def __init__(self, now: Callable[[], int], check: Callable[[UsageDelta, Price], None]) -> None:
        self._now = now
        self._check = check
        self._moved: dict[Place, Entry] = {}  # counted again after a loss, in another month
        self._shown: set[Place] = set()  # by Stripe, at some time
        self.page = Page()
        self.ever: dict[str, Entry] = {}

    def observed(self, record: Record) -> Record:
        """Wrap the ledger's *record*, so that what it counts is entered here."""

        async def recorded(
            deltas: Sequence[UsageDelta], prices: Mapping[str, Price]
        ) -> list[RecordResult]:
            results = await record(deltas, prices)
            for delta, result in zip(deltas, results, strict=True):
                if result.outcome is DeltaOutcome.ACCEPTED and result.period is not None:
                    self._check(delta, prices[delta.sku])
                    self._enter(delta, result.period, prices[delta.sku].id)
            return results

        return recorded

    def enter_adjustment(self, adjustment: Adjustment) -> None:
        """Enter a correction."""
        entry = Entry(
            f"{adjustment.line} {adjustment.at_ms}",
            adjustment.customer,
            adjustment.line,
            adjustment.period,
            adjustment.line,
            adjustment.price,
            adjustment.quantity,
            self._now(),
        )
        self.page.entries[adjustment.line] = entry
        # A ledger that has lost a correction gives its number to another one.
        self.ever[entry.id] = entry

    def pinned(self, customer: CustomerId, month: Period, sku: str) -> str | None:
        """The price at which usage of *sku* counts in *month*, if there is some."""
        return self.page.pins.get((customer, month, sku))

    def sums(self, entries: Mapping[str, Entry]) -> Sums:
        """Add *entries* up."""
        found: Sums = defaultdict(Decimal)
        for entry in entries.values():
            found[entry.customer, entry.sku, entry.price] += entry.quantity
        return found

    def show(self, customer: CustomerId) -> None:
        """Note that Stripe shows all that the ledger has of *customer*: what only another ledger has, it need not."""
        entries = self.page.entries.values()
        self._shown |= {entry.place for entry in entries if entry.customer == customer}

    def credited_since(self, at_ms: int) -> Credits:
        """Add up what was taken off since *at_ms*, by customer and SKU."""
        return _credits(entry for entry in self._counted() if entry.at_ms >= at_ms)

    def credits_never_shown(self) -> Credits:
        """Add up what was taken off and no ledger has had Stripe show, by customer and SKU."""
        return _credits(entry for entry in self._counted() if entry.place not in self._shown)

    def _counted(self) -> list[Entry]:
        return [*self.ever.values(), *self._moved.values()]

    def _enter(self, delta: UsageDelta, month: Period, sold_at: str) -> None:
        origin = Period.containing(delta.occurred_at)
        late = month != origin
        line = f"{delta.sku}~{origin}" if late else delta.sku
        known = self.page.pins.get((delta.customer, origin, delta.sku)) if late else None
        price = self.page.pins.setdefault((delta.customer, month, line), known or sold_at)
        customer, sku, quantity = delta.customer, delta.sku, delta.quantity
        entry = Entry(delta.id, customer, sku, month, line, price, quantity, self._now())
        self.page.entries[delta.id] = entry
        first = self.ever.setdefault(delta.id, entry)
        if (first.month, first.line) != (month, line):
            self._moved[entry.place] = entry


def _credits(entries: Iterable[Entry]) -> Credits:
    found: Credits = defaultdict(Decimal)
    for entry in entries:
        found[entry.customer, entry.sku] += min(entry.quantity, Decimal())
    return found
