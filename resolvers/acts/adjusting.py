"""Support corrects what is billed this month."""

# ruff: noqa: A002 the contract calls the argument `input`

from decimal import Decimal

import billing.ledger
from billing.draft.bill import bill
from billing.errors import ErrorCode, Refused
from billing.ledger import NewAdjustment
from billing.money import plain
from billing.usage import CustomerId, Price
from resolvers.acts.act import Act
from resolvers.acts.checking import exactly, price_of, reasoned
from resolvers.acts.payloads import AdjustUsagePayload
from resolvers.acts.refusing import refusing
from resolvers.acts.syncing import request_sync
from resolvers.context import Context, Info
from resolvers.finding import must_find_customer
from resolvers.nouns.adjustment import Adjustment
from resolvers.nouns.customer import Customer
from resolvers.nouns.sync import Sync, SyncTrigger
from schema.types.inputs import AdjustUsageInput

LONGEST_KEY = 255
QUANTITY = ("input", "quantity")


@refusing
async def adjust_usage(info: Info, input: AdjustUsageInput) -> AdjustUsagePayload:
    """Support only: correct this month's usage by a line of its own, and sync."""
    context, asked, quantity = info.context, input, _checked(input)
    customer = await must_find_customer(context, asked.customer_id)
    price = await price_of(context.services, asked.sku, ("input", "sku"))
    before = await _total(context, customer.record.id)
    act = Act(
        context,
        customer.record.id,
        "adjustUsage",
        reasoned(asked.reason),
        key=asked.idempotency_key,
        about=f"{asked.sku} {plain(quantity)}",
    )
    async with act.noted({"total": before}) as noted:
        made = await _adjust(context, customer, asked, quantity, price)
        sync, _ = await request_sync(context, made.customer, SyncTrigger.SUPPORT)
        noted.after = {"total": await _total(context, made.customer), **_noted(made)}
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
    context: Context, customer: Customer, asked: AdjustUsageInput, quantity: Decimal, price: Price
) -> billing.ledger.Adjustment:
    ledger, owner = context.services.ledger, customer.record
    if owner.id not in await ledger.known([owner.id]):
        await ledger.register(owner.id, owner.currency or price.currency)
    return await ledger.adjust(
        NewAdjustment(
            customer=owner.id,
            sku=asked.sku,
            quantity=quantity,
            reason=reasoned(asked.reason),
            by=context.viewer.subject,
            idempotency_key=asked.idempotency_key,
        ),
        price,
    )


async def _total(context: Context, customer: CustomerId) -> str:
    ledger = context.services.ledger
    snapshot = await ledger.peek(customer, await ledger.open_period(customer))
    prices = await context.services.catalogue.by_id(snapshot.prices.values())
    return bill(snapshot, prices).total.formatted


def _noted(made: billing.ledger.Adjustment) -> dict[str, str]:
    return {"adjustment": made.id, "sku": made.sku, "quantity": plain(made.quantity)}
