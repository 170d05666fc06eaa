"""Ledger totals against what Stripe shows: the difference, of which ``flights`` makes requests. Pure.

A line of zero quantity is not on the invoice; a positive one counts by its price; a negative one is a
bare amount, because Stripe takes no negative quantity. An invoice holds at most 250 lines, other
people's included: what does not fit is billed as one line, ``rest``, and stays apart in the ledger.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from billing.invoicing.snapshot import PlannedLine, Snapshot, StripeLine
from billing.money import line_amount
from billing.usage import REST, LineKey, Price

MAX_LINES = 250
"""Stripe's documentation, "Create an invoice item": at most 250 items on an invoice."""

LINES_PER_CALL = 50
"""Stripe documents no bound for a bulk call; small enough to be answered in good time."""

Prices = Mapping[str, Price]
"""Prices by their id."""


@dataclass(frozen=True, slots=True)
class Added:
    """A line that the invoice lacks."""

    key: LineKey
    line: PlannedLine


@dataclass(frozen=True, slots=True)
class Updated:
    """A line that stands with other figures: *was* becomes *line*."""

    key: LineKey
    line: PlannedLine
    was: StripeLine


@dataclass(frozen=True, slots=True)
class Difference:
    """What has to happen for the invoice to say what the ledger says."""

    removed: Sequence[tuple[LineKey, StripeLine]] = ()
    updated: Sequence[Updated] = ()
    added: Sequence[Added] = ()

    def __bool__(self) -> bool:
        return bool(self.removed or self.updated or self.added)

    @property
    def calls(self) -> int:
        """How many requests it takes."""
        return sum(len(in_calls(part)) for part in (self.removed, self.updated, self.added))


def wanted(
    snapshot: Snapshot, prices: Prices, *, room: int = MAX_LINES
) -> dict[LineKey, PlannedLine]:
    """The lines that the period's invoice should have, at most *room* (> 0) of them.

    *prices* holds every price that ``snapshot.prices`` names; KeyError otherwise.
    """
    lines = {
        key: _planned(quantity, prices[snapshot.prices[key]])
        for key, quantity in sorted(snapshot.totals.items(), key=_place)
        if quantity
    }
    if len(lines) <= room:
        return lines
    kept = dict(list(lines.items())[: room - 1])
    rest = [line for key, line in lines.items() if key not in kept]
    amount = sum(line.amount for line in rest)
    return {**kept, REST: PlannedLine(Decimal(len(rest)), "", amount)}


def difference(
    lines: Mapping[LineKey, PlannedLine],
    standing: Iterable[tuple[LineKey, StripeLine]],
) -> Difference:
    """What turns our *standing* lines (in Stripe's order) into *lines*; of a doubled one the oldest stays."""
    removed, updated = [], []
    seen: set[LineKey] = set()
    for key, was in standing:
        line = lines.get(key)
        if (
            line is None
            or key in seen
            or is_by_amount(key, line.quantity) != stands_by_amount(key, was)
        ):
            removed.append((key, was))
            continue
        seen.add(key)
        if not _matches(key, line, was):
            updated.append(Updated(key, line, was))
    added = [Added(key, line) for key, line in lines.items() if key not in seen]
    return Difference(removed, updated, added)


def needs_reading(snapshot: Snapshot) -> bool:
    """Whether the next flush has to see the invoice first.

    It does before any line is added (what shows beats what we remember, and room depends on other
    people's lines); changing and removing lines that we know is absolute and needs no reading.
    """
    keys = {key for key, quantity in snapshot.totals.items() if quantity}
    changes_form = any(
        is_by_amount(key, snapshot.totals[key]) != stands_by_amount(key, line)
        for key, line in snapshot.lines.items()
        if key in keys
    )
    unverified = snapshot.verify_requested != snapshot.verify_done
    return unverified or changes_form or REST in snapshot.lines or not keys <= snapshot.lines.keys()


def is_by_amount(key: LineKey, quantity: Decimal) -> bool:
    """Whether the line goes to Stripe as a bare amount and not as price times quantity."""
    return quantity < 0 or key == REST


def stands_by_amount(key: LineKey, was: StripeLine) -> bool:
    """Whether the line stands at Stripe as a bare amount, by our doing or a person's."""
    return is_by_amount(key, was.quantity) or not was.price


def in_calls(lines: Sequence[Any]) -> list[list[Any]]:
    """*lines* in as many parts as it takes calls."""
    return [list(lines[at : at + LINES_PER_CALL]) for at in range(0, len(lines), LINES_PER_CALL)]


def _planned(quantity: Decimal, price: Price) -> PlannedLine:
    return PlannedLine(quantity, price.id, line_amount(quantity, price.unit_amount))


def _place(item: tuple[LineKey, Decimal]) -> tuple[int, str]:
    """Usage of the period first, then corrections, then what was carried from other periods."""
    key = item[0]
    return (1 if key.startswith("adj:") else 2 if "~" in key else 0), key


def _matches(key: LineKey, line: PlannedLine, was: StripeLine) -> bool:
    if is_by_amount(key, line.quantity):
        return (was.quantity, was.amount) == (line.quantity, line.amount)
    return (was.quantity, was.price) == (line.quantity, line.price)
