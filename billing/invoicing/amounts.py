"""A period's amounts, usage breakdowns, drift and flush preview, computed from the ledger. Pure.

All figures of one response come from one snapshot, so in_stripe + claimed + pending = total.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from typing import TypeVar

from billing.invoicing.diff import (
    MAX_LINES,
    Diff,
    Prices,
    desired_lines,
    diff_lines,
    is_remote_amount_line,
)
from billing.invoicing.remote_invoice import RemoteInvoice
from billing.invoicing.request_batch import PlannedLine
from billing.invoicing.snapshot import Snapshot, StripeLine
from billing.money import EXACT, Money, line_amount
from billing.usage import ADJUSTMENT_PREFIX, LineKey, Price

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PeriodAmounts:
    """A period's amounts; *in_stripe* + *claimed* + *pending* = *total*.

    *claimed* is in a request batch that is not committed, *pending* is recorded and not yet sent.
    """

    in_stripe: Money
    claimed: Money
    pending: Money
    total: Money


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One row of a usage breakdown; *key* is a line key, app, region or organization.

    *amount* is exact and may have sub-cent digits. *quantity* has a meaningful unit only within one SKU.
    *unit_price* is None for a row of several prices, *corrections* (the part of the amount that adjustments
    make up) for one without.
    """

    key: str
    description: str | None
    quantity: Decimal
    unit: str | None
    amount: Money
    unit_price: Money | None
    corrections: Money | None


ROUNDING = 1  # minor units by which Stripe's rounding of a line may differ from ours


class DriftKind(StrEnum):
    """Kind of difference between Stripe and the ledger."""

    MISSING = "MISSING"
    EXTRA = "EXTRA"
    QUANTITY = "QUANTITY"
    PRICE = "PRICE"


@dataclass(frozen=True, slots=True)
class DriftLine:
    """A line that differs between ledger and Stripe; *amount* is Stripe's minus the ledger's.

    *key* is None for a foreign line, *line_id* is None for a missing one.
    """

    key: LineKey | None
    line_id: str | None
    kind: DriftKind
    expected: Decimal | None
    found: Decimal | None
    amount: Money


@dataclass(frozen=True, slots=True)
class FlushPreview:
    """The requests that a flush would send, computed without a call to Stripe."""

    creates_invoice: bool
    diff: Diff
    calls: int


def compute_amounts(snapshot: Snapshot, prices: Prices) -> PeriodAmounts:
    """Return the period's amounts; *prices* must have every price that the snapshot pins.

    Stripe's rounding counts for what it has: pending is only what it was not told.
    """
    total = sum(
        _stripe_amount(snapshot, key, quantity, prices[snapshot.prices[key]])
        for key, quantity in snapshot.totals.items()
    )
    in_stripe = _sum(snapshot.lines)
    claimed = 0 if snapshot.batch is None else _sum(snapshot.batch.expected_lines) - in_stripe
    amounts = (in_stripe, claimed, total - in_stripe - claimed, total)
    return PeriodAmounts(*(Money.from_minor(amount, snapshot.currency) for amount in amounts))


def usage_by_group(
    groups: Mapping[str, Mapping[LineKey, Decimal]],
    snapshot: Snapshot,
    prices: Prices,
) -> list[UsageRow]:
    """Return one row per group, largest amount first; *groups* is group → line → quantity."""
    rows = [_row(value, lines.items(), snapshot, prices) for value, lines in groups.items()]
    return sorted(rows, key=by_size)


def by_size(row: UsageRow) -> tuple[Decimal, str]:
    """Sort a credit beside the charges of its size: it may be the reason for the total."""
    return -abs(row.amount.amount), row.key


def find_drift(
    snapshot: Snapshot, invoice: RemoteInvoice | None, prices: Prices
) -> list[DriftLine]:
    """Return the lines in which the invoice differs from the last flush; empty if it agrees.

    Pending usage is not drift, nor is the rounding of half a minor unit. An amount that is not quantity times
    unit amount is, also if Stripe has computed it by a price that the ledger multiplies wrongly.
    """
    lines = [] if invoice is None else invoice.own_lines
    found: dict[LineKey, StripeLine] = {}
    drifted: list[DriftLine] = []
    for key, line in lines:
        if key in snapshot.lines and key not in found:
            found[key] = line
        else:
            drifted.append(_extra(snapshot, key, line))
    for key, sent in snapshot.lines.items():
        price = prices.get(sent.price)
        amount = line_amount(sent.quantity, price.unit_amount) if price else sent.amount
        drifted += _compare_line(snapshot, key, replace(sent, amount=amount), found.get(key))
    foreign = [] if invoice is None else [line for line in invoice.lines if line.key is None]
    return drifted + [_extra(snapshot, None, line.line) for line in foreign]


def preview_flush(snapshot: Snapshot, prices: Prices) -> FlushPreview:
    """Return the requests that a flush would send now, by the lines that the ledger has stored."""
    lines = desired_lines(snapshot, prices, room=MAX_LINES)
    diff = diff_lines(lines, snapshot.lines.items())
    creates = snapshot.invoice is None and bool(lines)
    return FlushPreview(creates, diff, diff.calls + creates)


def _stripe_amount(snapshot: Snapshot, key: LineKey, quantity: Decimal, price: Price) -> int:
    """Return Stripe's amount of the line if it has this quantity at this price, else the one that we expect."""
    line = snapshot.lines.get(key)
    if line is not None and (line.quantity, line.price) == (quantity, price.id):
        return line.amount
    return line_amount(quantity, price.unit_amount)


def _sum(lines: Mapping[LineKey, StripeLine] | Mapping[LineKey, PlannedLine]) -> int:
    return sum(line.amount for line in lines.values())


def _row(
    key: str,
    lines: Iterable[tuple[LineKey, Decimal]],
    snapshot: Snapshot,
    prices: Prices,
) -> UsageRow:
    quantity, minor, corrected, used_prices = Decimal(0), Decimal(0), Decimal(0), set()
    for line, used in lines:
        price = prices[snapshot.prices[line]]
        quantity = EXACT.add(quantity, used)
        amount = EXACT.multiply(used, price.unit_amount)
        minor = EXACT.add(minor, amount)
        if line.startswith(ADJUSTMENT_PREFIX):
            corrected = EXACT.add(corrected, amount)
        used_prices.add(price)
    currency = snapshot.currency
    unit_amount = _single({price.unit_amount for price in used_prices})
    return UsageRow(
        key,
        description=_single({price.description for price in used_prices}),
        quantity=quantity,
        unit=_single({price.unit for price in used_prices}),
        amount=Money.from_minor(minor, currency),
        unit_price=None if unit_amount is None else Money.from_minor(unit_amount, currency),
        corrections=Money.from_minor(corrected, currency) if corrected else None,
    )


def _single(values: set[T]) -> T | None:
    return next(iter(values)) if len(values) == 1 else None


def _extra(snapshot: Snapshot, key: LineKey | None, line: StripeLine) -> DriftLine:
    amount = Money.from_minor(line.amount, snapshot.currency)
    return DriftLine(key, line.id, DriftKind.EXTRA, None, line.quantity, amount)


def _compare_line(
    snapshot: Snapshot,
    key: LineKey,
    sent: StripeLine,
    found: StripeLine | None,
) -> list[DriftLine]:
    if found is None:
        amount = Money.from_minor(-sent.amount, snapshot.currency)
        return [DriftLine(key, None, DriftKind.MISSING, sent.quantity, None, amount)]
    tolerance = 0 if is_remote_amount_line(key, sent) or sent.bare_amount else ROUNDING
    if found.quantity != sent.quantity:
        kind = DriftKind.QUANTITY
    elif found.price != sent.price or abs(found.amount - sent.amount) > tolerance:
        kind = DriftKind.PRICE
    else:
        return []
    amount = Money.from_minor(found.amount - sent.amount, snapshot.currency)
    return [DriftLine(key, found.id, kind, sent.quantity, found.quantity, amount)]
