"""Computes what a finalized invoice billed too little or too much; it moves to the next open period. Pure.

The invoice at Stripe decides, not the lines that we meant to send. This one rule covers late usage, invoices
that a person finalized or edited, and duplicated lines.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from billing.invoicing.diff import Prices, is_amount_line
from billing.invoicing.snapshot import Snapshot, StripeLine
from billing.money import EXACT, QUANTITY_STEP, line_amount
from billing.usage import REST_LINE, LineKey, Price

Lines = Sequence[tuple[LineKey, StripeLine]]


def price_ids(snapshot: Snapshot, lines: Lines) -> dict[LineKey, str]:
    """Return each line's price id: the ledger's, or Stripe's for a line that the ledger has lost."""
    stated = {key: line.price or line.metadata_price for key, line in lines}
    return {**{key: price for key, price in stated.items() if price}, **snapshot.prices}


def residuals(snapshot: Snapshot, lines: Lines, prices: Prices) -> dict[LineKey, Decimal]:
    """Return ledger minus *lines* (ours, on the period's finalized invoices) by line; empty if they agree.

    Stripe's rounding is accepted: a line by the right price counts with its quantity, whatever its amount.
    """
    pinned = {key: prices[price] for key, price in price_ids(snapshot, lines).items()}
    owed = dict(snapshot.totals)
    for key, line in lines:
        if key in pinned:
            billed = _billed_quantity(key, line, pinned[key])
            owed[key] = EXACT.subtract(owed.get(key, Decimal(0)), billed)
    if any(key == REST_LINE for key, _ in lines):
        _apply_rest_line(snapshot, lines, pinned, owed)
    return {key: quantity for key, quantity in sorted(owed.items()) if quantity}


def _billed_quantity(key: LineKey, line: StripeLine, price: Price) -> Decimal:
    """Return the quantity that *line* bills at its pinned price, even if a person changed its amount."""
    unit = price.unit_amount
    if is_amount_line(key, line.quantity):
        intact = line.amount == line_amount(line.quantity, unit)
    else:
        intact = line.price == price.id
    return line.quantity if intact or not unit else _quantity_for(line.amount, unit)


def _apply_rest_line(
    snapshot: Snapshot,
    lines: Lines,
    pinned: Mapping[LineKey, Price],
    owed: dict[LineKey, Decimal],
) -> None:
    """Clear lines that the rest line bills; assign a difference in money to one of them."""
    # An old ledger may have a SKU named like the rest line, from before it was refused; it is part of the rest.
    members = _rolled_up(snapshot.totals, (key for key, _ in lines if key != REST_LINE))
    due = sum(line_amount(quantity, pinned[key].unit_amount) for key, quantity in members.items())
    missing = due - sum(line.amount for key, line in lines if key == REST_LINE)
    for key in members:
        owed[key] = Decimal(0)
    payer = next((key for key in (*members, *sorted(owed)) if pinned[key].unit_amount), None)
    if missing and payer is not None:
        owed[payer] = EXACT.add(owed[payer], _quantity_for(missing, pinned[payer].unit_amount))


def _rolled_up(
    totals: Mapping[LineKey, Decimal], keys: Iterable[LineKey]
) -> dict[LineKey, Decimal]:
    itemized = set(keys)
    return {key: quantity for key, quantity in totals.items() if quantity and key not in itemized}


def _quantity_for(amount: int, unit_amount: Decimal) -> Decimal:
    return EXACT.divide(Decimal(amount), unit_amount).quantize(QUANTITY_STEP, context=EXACT)
