"""`previewSync`: the writes that a sync would make, with or without a correction."""

from dataclasses import replace
from decimal import Decimal

from billing.errors import Refused
from billing.invoicing.amounts import compute_amounts
from billing.invoicing.snapshot import Snapshot
from billing.ledger.adjustments import wrong_currency
from billing.money import Money, format_decimal, line_amount
from billing.stripe.records import CustomerRecord
from billing.usage import CustomerId, Period, Price, adjustment_line_key
from resolvers.adjustments import correction_price
from resolvers.audited import AuditedAction
from resolvers.billing_periods import PricedSnapshot
from resolvers.context import Context
from resolvers.customers import DEFAULT_CURRENCY
from resolvers.mutations.adjust_usage import Correction
from resolvers.node_lookup import require_customer
from resolvers.validation import parse_month, parse_quantity, require_billable

SKU_PATH = ("correction", "sku")
PREVIEW_LINE = adjustment_line_key("preview")


async def preview_sync(
    context: Context, customer_id: str, correction: Correction | None
) -> PricedSnapshot:
    """Compute the snapshot that a sync would write, with *correction* applied; nothing is written."""
    customer = (await require_customer(context, customer_id)).value
    services, quantity, month = context.bypass_loaders(), Decimal(), None
    if correction:
        quantity = parse_quantity(correction.quantity, ("correction", "quantity"))
        month = parse_month(correction.month, ("correction", "month"))
    snapshot = await _load_snapshot(context, customer.id, month, correcting=bool(quantity))
    prices = await services.price_catalog.require(snapshot.prices.values())
    price = None
    if correction and quantity:
        price = await correction_price(services, snapshot, correction.sku, SKU_PATH)
        require_billable(quantity, price, ("correction", "quantity"))
    currency = _currency(snapshot, customer, price)
    preview = PricedSnapshot(replace(snapshot, currency=currency), prices)
    if price:
        preview = _with_correction(preview, quantity, price)
    async with AuditedAction(context, customer.id, "previewSync").run({}) as audit:
        audit.after = {
            "correction": f"{correction.sku} {format_decimal(quantity)}"
            if price and correction
            else None,
            "total": compute_amounts(preview.snapshot, preview.prices).total.formatted,
            "month": str(snapshot.period),
        }
    return preview


def correction_warnings(preview: PricedSnapshot) -> list[str]:
    """Doubts about the previewed correction, for the person who is about to make it."""
    snapshot = preview.snapshot
    quantity = snapshot.totals.get(PREVIEW_LINE)
    if not quantity:
        return []
    sku = preview.sku_of(PREVIEW_LINE)
    lines = [key for key in snapshot.totals if key != PREVIEW_LINE and preview.sku_of(key) == sku]
    used = sum((snapshot.totals[key] for key in lines), Decimal())
    price = preview.prices[snapshot.prices[PREVIEW_LINE]]
    warnings = []
    if not lines:
        warnings.append(f"The month has no usage of {sku}.")
    elif used + quantity < 0:
        taken, left = format_decimal(-quantity), format_decimal(used)
        warnings.append(f"This takes off {taken} of {sku}, and the month has {left}.")
    if line_amount(quantity, price.unit_amount) == 0:
        unit_price = Money.from_minor(price.unit_amount, price.currency).formatted
        warnings.append(
            f"This comes to nothing: a quantity is in the unit of the price, {unit_price} each, and not in money."
        )
    if compute_amounts(snapshot, preview.prices).total.amount < 0:
        warnings.append("The month's total becomes negative.")
    return warnings


async def _load_snapshot(
    context: Context, customer: CustomerId, month: Period | None, *, correcting: bool
) -> Snapshot:
    """The snapshot of *month*, or of the current month; Refused if *month* cannot be corrected."""
    if correcting:
        try:
            month = await context.bypass_loaders().ledger.adjustments.adjustable_period(
                customer, month
            )
        except Refused as refusal:
            raise Refused(refusal.code, refusal.message, ("correction", "month")) from refusal
    if month is None:
        return await context.loaders.snapshot(customer)
    return await context.loaders.period(customer, month)


def _currency(snapshot: Snapshot, customer: CustomerRecord, price: Price | None) -> str:
    """The currency of the bill: of its usage, else the customer's own; Refused if *price* has another."""
    billed = snapshot.invoice or any(snapshot.totals.values())
    known = snapshot.currency if billed else customer.currency or snapshot.currency
    if known and price and price.currency != known:
        refusal = wrong_currency(price.sku)
        raise Refused(refusal.code, refusal.message, SKU_PATH)
    return known or (price.currency if price else DEFAULT_CURRENCY)


def _with_correction(preview: PricedSnapshot, quantity: Decimal, price: Price) -> PricedSnapshot:
    snapshot = preview.snapshot
    corrected = replace(
        snapshot,
        totals={**snapshot.totals, PREVIEW_LINE: quantity},
        prices={**snapshot.prices, PREVIEW_LINE: price.id},
    )
    return PricedSnapshot(corrected, {**preview.prices, price.id: price})
