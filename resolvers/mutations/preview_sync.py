"""Support looks before it leaps: what a sync would write, with a correction or without."""

# ruff: noqa: A002 the contract calls the argument `input`

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Annotated

import strawberry

from billing.errors import Refused
from billing.invoicing.snapshot import Snapshot
from billing.money import plain
from billing.usage import CustomerId, Period, Price, adjustment_line
from resolvers.audited import Act
from resolvers.context import Context, Info
from resolvers.mutations.payloads import PreviewSyncPayload
from resolvers.node_lookup import must_find_customer
from resolvers.types.customer import UNBILLED
from resolvers.types.sync_plan import SyncPlan
from resolvers.user_errors import refusing
from resolvers.validation import exactly, monthly, price_of
from schema.inputs import CorrectionInput, SyncBillingInput

Correction = Annotated[
    CorrectionInput | None,
    strawberry.argument(
        description="As if `adjustUsage` had been called with this; a quantity of 0 corrects nothing."
    ),
]
IMAGINED = adjustment_line("preview")


@refusing
async def preview_sync(
    info: Info, input: SyncBillingInput, correction: Correction = None
) -> PreviewSyncPayload:
    """Support only: what a sync would tell Stripe, without telling it; with a correction, its effect."""
    context = info.context
    customer = (await must_find_customer(context, input.customer_id)).record
    quantity = exactly(correction.quantity, ("correction", "quantity")) if correction else Decimal()
    month = monthly(correction.month, ("correction", "month")) if correction else None
    snapshot = await _snapshot(context, customer.id, month, correcting=bool(quantity))
    prices: Mapping[str, Price] = await context.services.catalogue.by_id(snapshot.prices.values())
    snapshot = replace(snapshot, currency=snapshot.currency or customer.currency or UNBILLED)
    if correction and quantity:
        price = await price_of(context.services, correction.sku, ("correction", "sku"))
        snapshot, prices = _corrected(snapshot, quantity, price), {**prices, price.id: price}
    plan = SyncPlan.of(snapshot, prices)
    asked = f"{correction.sku} {plain(quantity)}" if correction else None
    async with Act(context, customer.id, "previewSync").noted({}) as noted:
        noted.after = {
            "correction": asked,
            "total": plan.total.formatted,
            "month": str(snapshot.period),
        }
    return PreviewSyncPayload(plan=plan)


async def _snapshot(
    context: Context, customer: CustomerId, month: Period | None, *, correcting: bool
) -> Snapshot:
    """The month's bill, or the current one; Refused as the correction would be."""
    if correcting:
        try:
            month = await context.services.ledger.correctable(customer, month)
        except Refused as refusal:
            raise Refused(refusal.code, refusal.message, ("correction", "month")) from refusal
    if month is None:
        return await context.loaders.snapshot.load(customer)
    return await context.loaders.period.load((customer, month))


def _corrected(snapshot: Snapshot, quantity: Decimal, price: Price) -> Snapshot:
    return replace(
        snapshot,
        totals={**snapshot.totals, IMAGINED: quantity},
        prices={**snapshot.prices, IMAGINED: price.id},
    )
