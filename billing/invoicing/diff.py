"""Compares the ledger's totals with the invoice's lines; ``requests`` sends the difference. Pure.

A line with quantity zero is not on the invoice. A positive quantity is billed by its price, a negative one
as a bare amount, because Stripe accepts no negative quantity. An invoice has at most 250 lines, foreign
lines included: what does not fit is billed as one line, ``rest``, and stays itemized in the ledger.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from billing.invoicing.request_batch import PlannedLine
from billing.invoicing.snapshot import Snapshot, StripeLine
from billing.money import line_amount
from billing.usage import REST_LINE, LineKey, Price

MAX_LINES = 250
"""Stripe's documentation, "Create an invoice item": at most 250 items on an invoice."""

LINES_PER_CALL = 50
"""Stripe documents no limit for a bulk call; this is small enough to be answered in time."""

Prices = Mapping[str, Price]
"""Prices by id."""


@dataclass(frozen=True, slots=True)
class AddedLine:
    """A line to add to the invoice."""

    key: LineKey
    line: PlannedLine


@dataclass(frozen=True, slots=True)
class UpdatedLine:
    """A line to change on the invoice, from *current* to *line*."""

    key: LineKey
    line: PlannedLine
    current: StripeLine


@dataclass(frozen=True, slots=True)
class Diff:
    """The changes that make the invoice agree with the ledger."""

    removed: Sequence[tuple[LineKey, StripeLine]] = ()
    updated: Sequence[UpdatedLine] = ()
    added: Sequence[AddedLine] = ()

    def __bool__(self) -> bool:
        return bool(self.removed or self.updated or self.added)

    @property
    def calls(self) -> int:
        """Number of requests."""
        return sum(len(chunked(part)) for part in (self.removed, self.updated, self.added))


def desired_lines(
    snapshot: Snapshot, prices: Prices, *, room: int = MAX_LINES
) -> dict[LineKey, PlannedLine]:
    """Return the lines that the period's invoice should have, at most *room* (> 0) of them.

    *prices* must have every price that ``snapshot.prices`` names; KeyError otherwise.
    """
    lines = {
        key: _planned_line(quantity, prices[snapshot.prices[key]])
        for key, quantity in sorted(snapshot.totals.items(), key=_sort_key)
        if quantity
    }
    if len(lines) <= room:
        return lines
    itemized = dict(list(lines.items())[: room - 1])
    rest = [line for key, line in lines.items() if key not in itemized]
    amount = sum(line.amount for line in rest)
    return {**itemized, REST_LINE: PlannedLine(Decimal(len(rest)), "", amount)}


def diff_lines(
    desired: Mapping[LineKey, PlannedLine],
    current: Iterable[tuple[LineKey, StripeLine]],
) -> Diff:
    """Return the changes from our *current* lines (in Stripe's order) to *desired*.

    Of a duplicated line the oldest stays.
    """
    removed, updated = [], []
    matched: set[LineKey] = set()
    for key, remote in current:
        line = desired.get(key)
        if (
            line is None
            or key in matched
            or is_amount_line(key, line.quantity) != is_remote_amount_line(key, remote)
        ):
            removed.append((key, remote))
            continue
        matched.add(key)
        if not _matches(key, line, remote):
            updated.append(UpdatedLine(key, line, remote))
    added = [AddedLine(key, line) for key, line in desired.items() if key not in matched]
    return Diff(removed, updated, added)


def requires_fetch(snapshot: Snapshot) -> bool:
    """Return True if the next flush must fetch the invoice before it changes it.

    A line is never added without a fetch: Stripe's lines outrank the stored ones, and the room depends on
    foreign lines. Changing and removing known lines is absolute and needs no fetch.
    """
    keys = {key for key, quantity in snapshot.totals.items() if quantity}
    changes_kind = any(
        is_amount_line(key, snapshot.totals[key]) != is_remote_amount_line(key, line)
        for key, line in snapshot.lines.items()
        if key in keys
    )
    unverified = snapshot.verify_requested != snapshot.verify_done
    return (
        unverified
        or changes_kind
        or REST_LINE in snapshot.lines
        or not keys <= snapshot.lines.keys()
    )


def is_amount_line(key: LineKey, quantity: Decimal) -> bool:
    """Return True if the line is billed as a bare amount and not as price times quantity."""
    return quantity < 0 or key == REST_LINE


def is_remote_amount_line(key: LineKey, line: StripeLine) -> bool:
    """Return True if the line is a bare amount at Stripe, whether we or a person made it one."""
    return is_amount_line(key, line.quantity) or not line.price


def chunked(lines: Sequence[Any]) -> list[list[Any]]:
    """Split *lines* into one list per call."""
    return [list(lines[n : n + LINES_PER_CALL]) for n in range(0, len(lines), LINES_PER_CALL)]


def _planned_line(quantity: Decimal, price: Price) -> PlannedLine:
    return PlannedLine(quantity, price.id, line_amount(quantity, price.unit_amount))


def _sort_key(item: tuple[LineKey, Decimal]) -> tuple[int, str]:
    """Sort usage of the period first, then adjustments, then lines carried from other periods."""
    key = item[0]
    return (1 if key.startswith("adj:") else 2 if "~" in key else 0), key


def _matches(key: LineKey, line: PlannedLine, remote: StripeLine) -> bool:
    if is_amount_line(key, line.quantity):
        return (remote.quantity, remote.amount) == (line.quantity, line.amount)
    return (remote.quantity, remote.price) == (line.quantity, line.price)
