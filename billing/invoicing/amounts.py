"""What a period comes to, by the ledger: amounts, breakdowns, drift and a preview. Pure.

Every number of one answer is made of one snapshot, so that in Stripe + claimed + pending = total.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from billing.invoicing.diff import MAX_LINES, Difference, Prices, difference, is_by_amount, wanted
from billing.invoicing.remote_invoice import SeenInvoice
from billing.invoicing.snapshot import PlannedLine, Snapshot, StripeLine
from billing.money import EXACT, Money, line_amount
from billing.usage import LineKey


@dataclass(frozen=True, slots=True)
class Bill:
    """A period's numbers; *in_stripe* + *claimed* + *pending* = *total*, always.

    *claimed* is on its way to Stripe, *pending* is recorded and not yet sent.
    """

    in_stripe: Money
    claimed: Money
    pending: Money
    total: Money


@dataclass(frozen=True, slots=True)
class Usage:
    """One row of a breakdown. *amount* is exact and so may have sub-cent digits; Stripe rounds lines.

    By SKU, *key* is the line's; *quantity* adds up units only within one SKU.
    """

    key: str
    description: str | None
    quantity: Decimal
    unit: str | None
    amount: Money


class DriftKind(StrEnum):
    """How a line at Stripe differs from the ledger's."""

    MISSING = "MISSING"
    EXTRA = "EXTRA"
    QUANTITY = "QUANTITY"
    PRICE = "PRICE"


@dataclass(frozen=True, slots=True)
class DriftLine:
    """A line on which ledger and Stripe differ; *amount* is Stripe's minus the ledger's.

    *key* is None for a line that somebody else put on the invoice; *line_id* for one that is missing.
    """

    key: LineKey | None
    line_id: str | None
    kind: DriftKind
    expected: Decimal | None
    found: Decimal | None
    amount: Money


@dataclass(frozen=True, slots=True)
class Preview:
    """What a flush would send, as far as the ledger knows without asking Stripe."""

    creates_invoice: bool
    change: Difference
    calls: int


def bill(snapshot: Snapshot, prices: Prices) -> Bill:
    """The period's numbers; *prices* holds every price that the snapshot pins."""
    total = sum(
        line_amount(quantity, prices[snapshot.prices[key]].unit_amount)
        for key, quantity in snapshot.totals.items()
    )
    in_stripe = _sum(snapshot.lines)
    claimed = 0 if snapshot.flight is None else _sum(snapshot.flight.landed) - in_stripe
    amounts = (in_stripe, claimed, total - in_stripe - claimed, total)
    return Bill(*(Money.of_minor(amount, snapshot.currency) for amount in amounts))


def usage_by_sku(snapshot: Snapshot, prices: Prices) -> list[Usage]:
    """One row a line of the ledger, the dearest first."""
    rows = [
        _row(key, [(key, quantity)], snapshot, prices)
        for key, quantity in snapshot.totals.items()
        if quantity
    ]
    return sorted(rows, key=lambda row: (-row.amount.amount, row.key))


def usage_by(
    groups: Mapping[str, Mapping[str, Decimal]],
    snapshot: Snapshot,
    prices: Prices,
) -> list[Usage]:
    """One row an app, region or organization, the dearest first; *groups* is value → line → quantity."""
    rows = [
        _row(value, [(LineKey(key), quantity) for key, quantity in lines.items()], snapshot, prices)
        for value, lines in groups.items()
    ]
    return sorted(rows, key=lambda row: (-row.amount.amount, row.key))


def drift(snapshot: Snapshot, seen: SeenInvoice | None) -> list[DriftLine]:
    """Line by line, how the invoice differs from what the gateway has told Stripe; empty is agreement.

    Usage that is still pending is no drift: the measure is what the last flush left there.
    """
    lines = [] if seen is None else seen.ours
    found: dict[LineKey, StripeLine] = {}
    drifted: list[DriftLine] = []
    for key, line in lines:
        if key in snapshot.lines and key not in found:
            found[key] = line
        else:
            drifted.append(_extra(snapshot, key, line))
    for key, told in snapshot.lines.items():
        drifted += _compared(snapshot, key, told, found.get(key))
    strangers = [] if seen is None else [line for line in seen.lines if line.key is None]
    return drifted + [_extra(snapshot, None, line.standing) for line in strangers]


def preview(snapshot: Snapshot, prices: Prices) -> Preview:
    """The requests that a flush would make now, by what the ledger remembers of the invoice."""
    lines = wanted(snapshot, prices, room=MAX_LINES)
    change = difference(lines, snapshot.lines.items())
    creates = snapshot.invoice is None and bool(lines)
    return Preview(creates, change, change.calls + creates)


def _sum(lines: Mapping[LineKey, StripeLine] | Mapping[LineKey, PlannedLine]) -> int:
    return sum(line.amount for line in lines.values())


def _row(
    key: str,
    lines: Iterable[tuple[LineKey, Decimal]],
    snapshot: Snapshot,
    prices: Prices,
) -> Usage:
    quantity, minor, units, names = Decimal(0), Decimal(0), set(), set()
    for line, counted in lines:
        price = prices[snapshot.prices[line]]
        quantity = EXACT.add(quantity, counted)
        minor = EXACT.add(minor, EXACT.multiply(counted, price.unit_amount))
        units.add(price.unit)
        names.add(price.description)
    amount = Money.of_minor(minor, snapshot.currency)
    return Usage(key, _only(names), quantity, _only(units), amount)


def _only(values: set[str | None]) -> str | None:
    return next(iter(values)) if len(values) == 1 else None


def _extra(snapshot: Snapshot, key: LineKey | None, line: StripeLine) -> DriftLine:
    amount = Money.of_minor(line.amount, snapshot.currency)
    return DriftLine(key, line.id, DriftKind.EXTRA, None, line.quantity, amount)


def _compared(
    snapshot: Snapshot,
    key: LineKey,
    told: StripeLine,
    found: StripeLine | None,
) -> list[DriftLine]:
    if found is None:
        amount = Money.of_minor(-told.amount, snapshot.currency)
        return [DriftLine(key, None, DriftKind.MISSING, told.quantity, None, amount)]
    if found.quantity != told.quantity:
        kind = DriftKind.QUANTITY
    elif found.price != told.price or (
        is_by_amount(key, told.quantity) and found.amount != told.amount
    ):
        kind = DriftKind.PRICE
    else:
        return []
    amount = Money.of_minor(found.amount - told.amount, snapshot.currency)
    return [DriftLine(key, found.id, kind, told.quantity, found.quantity, amount)]
