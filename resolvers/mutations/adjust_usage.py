"""`adjustUsage`: Support corrects the bill of the current month, or of an earlier month not yet final."""

from dataclasses import dataclass
from decimal import Decimal

from billing.errors import ErrorCode, Refused
from billing.invoicing.amounts import compute_amounts
from billing.invoicing.remote_invoice import DRAFT
from billing.invoicing.snapshot import Snapshot
from billing.ledger import Adjustment, NewAdjustment
from billing.ledger.syncs import Sync, SyncTrigger
from billing.ledger.usage import CurrencySource
from billing.money import format_decimal
from billing.services import Services
from billing.stripe.records import CustomerRecord
from billing.usage import CustomerId, Period, Price
from billing.usage_validation import MAX_TEXT_LENGTH, is_readable
from resolvers.adjustments import PricedAdjustment, correction_price, with_price
from resolvers.audited import AuditedAction
from resolvers.context import Context
from resolvers.mutations.sync_billing import request_sync
from resolvers.node_lookup import require_customer
from resolvers.validation import parse_month, parse_quantity, require_billable, validate_reason


@dataclass(frozen=True, slots=True)
class Correction:
    """A correction of one month's usage, as the client sent it; *month* is None for the current month."""

    sku: str
    quantity: object
    month: str | None = None


@dataclass(frozen=True, slots=True)
class AdjustedUsage:
    """A recorded adjustment, and the sync that writes it to Stripe."""

    adjustment: PricedAdjustment
    sync: Sync


async def adjust_usage(
    context: Context, customer_id: str, correction: Correction, *, reason: str, idempotency_key: str
) -> AdjustedUsage:
    """Record the adjustment once per key, in the audit log and the ledger, and request a sync of its month."""
    quantity = _parse_quantity(correction)
    _validate_key(idempotency_key)
    reason, month = validate_reason(reason), parse_month(correction.month, ("month",))
    customer = (await require_customer(context, customer_id)).value
    services = context.bypass_loaders()
    price = await _price(services, customer.id, month, correction.sku, idempotency_key)
    require_billable(quantity, price, ("quantity",))
    new = NewAdjustment(
        customer=customer.id,
        sku=correction.sku,
        quantity=quantity,
        reason=reason,
        by=context.viewer.subject,
        idempotency_key=idempotency_key,
        period=month,
    )
    parameters = f"{new.sku} {format_decimal(quantity)}" + (f" {month}" if month else "")
    action = AuditedAction(
        context,
        customer.id,
        "adjustUsage",
        reason,
        idempotency_key=idempotency_key,
        parameters=parameters,
    )
    async with action.run({"total": await _total(context, customer.id, month)}) as audit:
        adjustment = await _adjust(context, customer, new, price)
        sync, _ = await request_sync(
            context, adjustment.customer, SyncTrigger.SUPPORT, adjustment.period
        )
        total = await _total(context, adjustment.customer, adjustment.period)
        audit.after, audit.sync = {"total": total, **_audit_values(adjustment)}, sync.id
    context.reset_loaders()  # the payload shows the bill with the adjustment
    return AdjustedUsage(await with_price(services, adjustment), sync)


def _parse_quantity(correction: Correction) -> Decimal:
    quantity = parse_quantity(correction.quantity, ("quantity",))
    if not quantity:
        raise Refused(
            ErrorCode.INVALID_INPUT,
            "An adjustment by 0 has no effect; give the quantity to add, negative to subtract.",
            ("quantity",),
        )
    return quantity


def _validate_key(key: str) -> None:
    if not (key and is_readable(key)):
        raise Refused(
            ErrorCode.INVALID_INPUT,
            f"Give the idempotency key 1 to {MAX_TEXT_LENGTH} printable characters.",
            ("idempotencyKey",),
        )


async def _price(
    services: Services, customer: CustomerId, month: Period | None, sku: str, idempotency_key: str
) -> Price:
    """The price of the correction; of a repeated one, that of the first."""
    made = await services.ledger.adjustments.created_by(customer, idempotency_key)
    if made is not None:
        return (await with_price(services, made)).price
    snapshot = await _snapshot(services, customer, month)
    return await correction_price(services, snapshot, sku, ("sku",))


async def _adjust(
    context: Context, customer: CustomerRecord, new: NewAdjustment, price: Price
) -> Adjustment:
    ledger = context.bypass_loaders().ledger
    source = CurrencySource.STRIPE if customer.currency else CurrencySource.PRICE
    currency = customer.currency or price.currency
    await ledger.usage.register_customer(customer.id, currency, source)
    if not await ledger.adjustments.created_by(customer.id, new.idempotency_key):
        period = await ledger.adjustments.adjustable_period(customer.id, new.period)
        await _require_draft(context, customer.id, period)
    return await ledger.adjustments.create(new, price)


async def _require_draft(context: Context, customer: CustomerId, month: Period) -> None:
    """Refuse if the invoice was finalized in Stripe and no worker has noticed yet, as under a hold."""
    invoice = (await context.bypass_loaders().ledger.periods.snapshot(customer, month)).invoice
    loaded = await context.loaders.invoice(invoice) if invoice else None
    if loaded is not None and loaded.value.status != DRAFT:
        raise Refused(
            ErrorCode.PERIOD_CLOSED,
            f"Invoice {invoice} of {month} was finalized in Stripe; write a credit note there.",
            ("month",),
        )


async def _total(context: Context, customer: CustomerId, month: Period | None) -> str:
    services = context.bypass_loaders()
    snapshot = await _snapshot(services, customer, month)
    prices = await services.price_catalog.require(snapshot.prices.values())
    return compute_amounts(snapshot, prices).total.formatted


async def _snapshot(services: Services, customer: CustomerId, month: Period | None) -> Snapshot:
    period = month or await services.ledger.periods.current(customer)
    return await services.ledger.periods.snapshot(customer, period)


def _audit_values(adjustment: Adjustment) -> dict[str, str]:
    return {
        "adjustment": adjustment.id,
        "sku": adjustment.sku,
        "quantity": format_decimal(adjustment.quantity),
        "month": str(adjustment.period),
    }
