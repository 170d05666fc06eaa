"""`adjustUsage`: Support corrects the bill of the current month, or of an earlier month not yet final."""

# ruff: noqa: A002 the contract calls the argument `input`

from decimal import Decimal

import billing.ledger
from billing.errors import ErrorCode, Refused
from billing.invoicing.amounts import compute_amounts
from billing.invoicing.remote_invoice import DRAFT
from billing.ledger import NewAdjustment
from billing.money import format_decimal
from billing.usage import CustomerId, Period, Price
from resolvers.audited import AuditedAction
from resolvers.context import Context, Info
from resolvers.mutations.payloads import AdjustUsagePayload
from resolvers.mutations.sync_billing import request_sync
from resolvers.node_lookup import require_customer
from resolvers.types.adjustment import Adjustment
from resolvers.types.customer import Customer
from resolvers.types.sync import Sync, SyncTrigger
from resolvers.user_errors import with_user_errors
from resolvers.validation import get_price, parse_month, parse_quantity, validate_reason
from schema.inputs import AdjustUsageInput

MAX_KEY_LENGTH = 255
QUANTITY_PATH = ("input", "quantity")


@with_user_errors
async def adjust_usage(info: Info, input: AdjustUsageInput) -> AdjustUsagePayload:
    """Support only: correct one month's usage with an invoice line of its own, and start a sync.

    A month that has ended can be corrected until finalization of its invoice begins; then the error is
    PERIOD_CLOSED. A repeated call with the same `idempotencyKey` returns the first adjustment.
    """
    context, quantity = info.context, _validate(input)
    month = parse_month(input.month, ("input", "month"))
    customer = await require_customer(context, input.customer_id)
    price = await get_price(context.uncached_services(), input.sku, ("input", "sku"))
    before = await _total(context, customer.record.id, month)
    action = AuditedAction(
        context,
        customer.record.id,
        "adjustUsage",
        validate_reason(input.reason),
        key=input.idempotency_key,
        about=f"{input.sku} {format_decimal(quantity)}" + (f" {month}" if month else ""),
    )
    async with action.run({"total": before}) as audit:
        new = NewAdjustment(
            customer=customer.record.id,
            sku=input.sku,
            quantity=quantity,
            reason=validate_reason(input.reason),
            by=context.viewer.subject,
            idempotency_key=input.idempotency_key,
            period=month,
        )
        adjustment = await _adjust(context, customer, new, price)
        sync, _ = await request_sync(
            context, adjustment.customer, SyncTrigger.SUPPORT, adjustment.period
        )
        audit.after = {
            "total": await _total(context, adjustment.customer, adjustment.period),
            **_audit_values(adjustment),
        }
        audit.sync = sync.id
    context.reset_loaders()  # the payload shows the bill with the correction
    return AdjustUsagePayload(
        adjustment=Adjustment.from_record(adjustment, price), sync=Sync.from_record(sync)
    )


def _validate(input: AdjustUsageInput) -> Decimal:
    """Validate *input* and return its quantity."""
    quantity = parse_quantity(input.quantity, QUANTITY_PATH)
    if not quantity:
        raise Refused(
            ErrorCode.INVALID_INPUT,
            "An adjustment by 0 has no effect; give the quantity to add, negative to subtract.",
            QUANTITY_PATH,
        )
    if not (
        0 < len(input.idempotency_key) <= MAX_KEY_LENGTH and input.idempotency_key.isprintable()
    ):
        raise Refused(
            ErrorCode.INVALID_INPUT,
            f"Give the idempotency key 1 to {MAX_KEY_LENGTH} printable characters.",
            ("input", "idempotencyKey"),
        )
    validate_reason(input.reason)
    return quantity


async def _adjust(
    context: Context, customer: Customer, new: NewAdjustment, price: Price
) -> billing.ledger.Adjustment:
    ledger, owner = context.uncached_services().ledger, customer.record
    if owner.id not in await ledger.registered_currencies([owner.id]):
        await ledger.register_customer(owner.id, owner.currency or price.currency)
    if not await ledger.has_adjustment(owner.id, new.idempotency_key):
        await _require_draft(
            context, owner.id, await ledger.adjustable_period(owner.id, new.period)
        )
    return await ledger.create_adjustment(new, price)


async def _require_draft(context: Context, customer: CustomerId, month: Period) -> None:
    """Refuse if the invoice was finalized in Stripe's dashboard and no worker has noticed yet, as under a hold."""
    invoice = (await context.uncached_services().ledger.snapshot(customer, month)).invoice
    loaded = await context.loaders.invoice.load(invoice) if invoice else None
    if loaded is not None and loaded.value.status != DRAFT:
        raise Refused(
            ErrorCode.PERIOD_CLOSED,
            f"Invoice {invoice} of {month} was finalized in Stripe; write a credit note there.",
            ("input", "month"),
        )


async def _total(context: Context, customer: CustomerId, month: Period | None) -> str:
    ledger = context.uncached_services().ledger
    snapshot = await ledger.snapshot(customer, month or await ledger.current_period(customer))
    prices = await context.uncached_services().price_catalog.by_id(snapshot.prices.values())
    return compute_amounts(snapshot, prices).total.formatted


def _audit_values(adjustment: billing.ledger.Adjustment) -> dict[str, str]:
    return {
        "adjustment": adjustment.id,
        "sku": adjustment.sku,
        "quantity": format_decimal(adjustment.quantity),
        "month": str(adjustment.period),
    }
