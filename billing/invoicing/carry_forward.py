"""What a finalized invoice left unbilled, or billed too much: carried into the next open period. Pure.

The invoice as Stripe shows it decides, not what we meant to send: late usage, people finalizing or
editing by hand and doubled lines all end here.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from billing.invoicing.diff import Prices, is_by_amount
from billing.invoicing.snapshot import Snapshot, StripeLine
from billing.money import EXACT, QUANTITY_STEP, line_amount
from billing.usage import REST, LineKey, Price

Lines = Sequence[tuple[LineKey, StripeLine]]


def price_ids(snapshot: Snapshot, lines: Lines) -> dict[LineKey, str]:
    """The price each line is counted at: the ledger's, or Stripe's for a line the ledger has lost."""
    stated = {key: line.price or line.marked for key, line in lines}
    return {**{key: price for key, price in stated.items() if price}, **snapshot.prices}


def residuals(snapshot: Snapshot, lines: Lines, prices: Prices) -> dict[LineKey, Decimal]:
    """Ledger minus *lines* (ours, on the period's finalized invoices), by line; empty when they agree.

    Stripe's own rounding stands: a line by the right price counts as its quantity, whatever amount
    Stripe made of it.
    """
    pinned = {key: prices[price] for key, price in price_ids(snapshot, lines).items()}
    owed = dict(snapshot.totals)
    for key, line in lines:
        if key in pinned:
            billed = _billed(key, line, pinned[key])
            owed[key] = EXACT.subtract(owed.get(key, Decimal(0)), billed)
    if any(key == REST for key, _ in lines):
        _settle_rest(snapshot, lines, pinned, owed)
    return {key: quantity for key, quantity in sorted(owed.items()) if quantity}


def _billed(key: LineKey, line: StripeLine, price: Price) -> Decimal:
    """The quantity that *line* comes to at its pinned price, even if a person changed its amount."""
    unit = price.unit_amount
    if is_by_amount(key, line.quantity):
        intact = line.amount == line_amount(line.quantity, unit)
    else:
        intact = line.price == price.id
    return line.quantity if intact or not unit else _quantity_for(line.amount, unit)


def _settle_rest(
    snapshot: Snapshot,
    lines: Lines,
    pinned: Mapping[LineKey, Price],
    owed: dict[LineKey, Decimal],
) -> None:
    """Lines that are billed within the rest owe nothing; a difference in money goes to one of them."""
    # A ledger may hold a SKU of the rest's own name, from before it was refused: it is billed within.
    members = _without(snapshot.totals, (key for key, _ in lines if key != REST))
    due = sum(line_amount(quantity, pinned[key].unit_amount) for key, quantity in members.items())
    missing = due - sum(line.amount for key, line in lines if key == REST)
    for key in members:
        owed[key] = Decimal(0)
    payer = next((key for key in (*members, *sorted(owed)) if pinned[key].unit_amount), None)
    if missing and payer is not None:
        owed[payer] = EXACT.add(owed[payer], _quantity_for(missing, pinned[payer].unit_amount))


def _without(totals: Mapping[LineKey, Decimal], keys: Iterable[LineKey]) -> dict[LineKey, Decimal]:
    alone = set(keys)
    return {key: quantity for key, quantity in totals.items() if quantity and key not in alone}


def _quantity_for(amount: int, unit_amount: Decimal) -> Decimal:
    return EXACT.divide(Decimal(amount), unit_amount).quantize(QUANTITY_STEP, context=EXACT)
