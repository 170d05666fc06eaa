"""Support corrects a month's bill: the current one's, or one that has ended and is not final yet."""

# ruff: noqa: A002 the contract calls the argument `input`

from decimal import Decimal

import billing.ledger
from billing.errors import ErrorCode, Refused
from billing.invoicing.amounts import bill
from billing.invoicing.remote_invoice import DRAFT
from billing.ledger import NewAdjustment
from billing.money import plain
from billing.usage import CustomerId, Period, Price
from resolvers.audited import Act
from resolvers.context import Context, Info
from resolvers.mutations.payloads import AdjustUsagePayload
from resolvers.mutations.sync_billing import request_sync
from resolvers.node_lookup import must_find_customer
from resolvers.types.adjustment import Adjustment
from resolvers.types.customer import Customer
from resolvers.types.sync import Sync, SyncTrigger
from resolvers.user_errors import refusing
from resolvers.validation import exactly, monthly, price_of, reasoned
from schema.inputs import AdjustUsageInput

LONGEST_KEY = 255
QUANTITY = ("input", "quantity")


@refusing
async def adjust_usage(info: Info, input: AdjustUsageInput) -> AdjustUsagePayload:
    """Support only: correct a month's usage by a line of its own, and sync.

    A month that has ended can be corrected until its bill is becoming final: PERIOD_CLOSED from then on.
    """
    context, asked, quantity = info.context, input, _checked(input)
    month = monthly(asked.month, ("input", "month"))
    customer = await must_find_customer(context, asked.customer_id)
    price = await price_of(context.services, asked.sku, ("input", "sku"))
    before = await _total(context, customer.record.id, month)
    act = Act(
        context,
        customer.record.id,
        "adjustUsage",
        reasoned(asked.reason),
        key=asked.idempotency_key,
        about=f"{asked.sku} {plain(quantity)}" + (f" {month}" if month else ""),
    )
    async with act.noted({"total": before}) as noted:
        new = NewAdjustment(
            customer=customer.record.id,
            sku=asked.sku,
            quantity=quantity,
            reason=reasoned(asked.reason),
            by=context.viewer.subject,
            idempotency_key=asked.idempotency_key,
            period=month,
        )
        made = await _adjust(context, customer, new, price)
        sync, _ = await request_sync(context, made.customer, SyncTrigger.SUPPORT, made.period)
        noted.after = {"total": await _total(context, made.customer, made.period), **_noted(made)}
        noted.sync = sync.id
    context.renew()  # the payload shows the bill with the correction
    return AdjustUsagePayload(adjustment=Adjustment.of(made, price), sync=Sync.of(sync))


def _checked(asked: AdjustUsageInput) -> Decimal:
    """By how much *asked* corrects."""
    quantity = exactly(asked.quantity, QUANTITY)
    if not quantity:
        raise Refused(
            ErrorCode.INVALID_INPUT,
            "A correction by 0 changes nothing; give the quantity to add or, negative, to take off.",
            QUANTITY,
        )
    if not (0 < len(asked.idempotency_key) <= LONGEST_KEY and asked.idempotency_key.isprintable()):
        raise Refused(
            ErrorCode.INVALID_INPUT,
            f"Give the idempotency key 1 to {LONGEST_KEY} printable characters.",
            ("input", "idempotencyKey"),
        )
    reasoned(asked.reason)
    return quantity


async def _adjust(
    context: Context, customer: Customer, new: NewAdjustment, price: Price
) -> billing.ledger.Adjustment:
    ledger, owner = context.services.ledger, customer.record
    if owner.id not in await ledger.known([owner.id]):
        await ledger.register(owner.id, owner.currency or price.currency)
    if not await ledger.is_adjusted(owner.id, new.idempotency_key):
        await _must_be_draft(context, owner.id, await ledger.correctable(owner.id, new.period))
    return await ledger.adjust(new, price)


async def _must_be_draft(context: Context, customer: CustomerId, month: Period) -> None:
    """Somebody may have finalized it in Stripe, under a hold say, and no worker has looked since."""
    invoice = (await context.services.ledger.peek(customer, month)).invoice
    found = await context.loaders.invoice.load(invoice) if invoice else None
    if found is not None and found.value.status != DRAFT:
        raise Refused(
            ErrorCode.PERIOD_CLOSED,
            f"Invoice {invoice} of {month} was finalized in Stripe; write a credit note there.",
            ("input", "month"),
        )


async def _total(context: Context, customer: CustomerId, month: Period | None) -> str:
    ledger = context.services.ledger
    snapshot = await ledger.peek(customer, month or await ledger.open_period(customer))
    prices = await context.services.catalogue.by_id(snapshot.prices.values())
    return bill(snapshot, prices).total.formatted


def _noted(made: billing.ledger.Adjustment) -> dict[str, str]:
    return {
        "adjustment": made.id,
        "sku": made.sku,
        "quantity": plain(made.quantity),
        "month": str(made.period),
    }
