"""`previewSync`: the writes that a sync would make, with or without a correction."""

# ruff: noqa: A002 the contract calls the argument `input`

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Annotated

import strawberry

from billing.errors import Refused
from billing.invoicing.snapshot import Snapshot
from billing.money import format_decimal
from billing.usage import CustomerId, Period, Price, adjustment_line_key
from resolvers.audited import AuditedAction
from resolvers.context import Context, Info
from resolvers.mutations.payloads import PreviewSyncPayload
from resolvers.node_lookup import require_customer
from resolvers.types.customer import DEFAULT_CURRENCY
from resolvers.types.sync_plan import SyncPlan
from resolvers.user_errors import with_user_errors
from resolvers.validation import get_price, parse_month, parse_quantity
from schema.inputs import CorrectionInput, SyncBillingInput

Correction = Annotated[
    CorrectionInput | None,
    strawberry.argument(
        description="Correction to include in the preview, as `adjustUsage` would apply it. A quantity of 0 has no effect."
    ),
]
PREVIEW_LINE = adjustment_line_key("preview")


@with_user_errors
async def preview_sync(
    info: Info, input: SyncBillingInput, correction: Correction = None
) -> PreviewSyncPayload:
    """Support only: compute the writes that a sync would make, without making any.

    With `correction`, the plan includes that correction. Nothing is written to the ledger or to Stripe.
    """
    context = info.context
    customer = (await require_customer(context, input.customer_id)).record
    quantity = (
        parse_quantity(correction.quantity, ("correction", "quantity")) if correction else Decimal()
    )
    month = parse_month(correction.month, ("correction", "month")) if correction else None
    snapshot = await _load_snapshot(context, customer.id, month, correcting=bool(quantity))
    prices: Mapping[str, Price] = await context.uncached_services().price_catalog.by_id(
        snapshot.prices.values()
    )
    snapshot = replace(
        snapshot, currency=snapshot.currency or customer.currency or DEFAULT_CURRENCY
    )
    if correction and quantity:
        price = await get_price(context.uncached_services(), correction.sku, ("correction", "sku"))
        snapshot, prices = _with_correction(snapshot, quantity, price), {**prices, price.id: price}
    plan = SyncPlan.from_snapshot(snapshot, prices)
    correction_text = f"{correction.sku} {format_decimal(quantity)}" if correction else None
    async with AuditedAction(context, customer.id, "previewSync").run({}) as audit:
        audit.after = {
            "correction": correction_text,
            "total": plan.total.formatted,
            "month": str(snapshot.period),
        }
    return PreviewSyncPayload(plan=plan)


async def _load_snapshot(
    context: Context, customer: CustomerId, month: Period | None, *, correcting: bool
) -> Snapshot:
    """The snapshot of *month*, or of the current month; Refused if *month* cannot be corrected."""
    if correcting:
        try:
            month = await context.uncached_services().ledger.adjustable_period(customer, month)
        except Refused as refusal:
            raise Refused(refusal.code, refusal.message, ("correction", "month")) from refusal
    if month is None:
        return await context.loaders.snapshot.load(customer)
    return await context.loaders.period.load((customer, month))


def _with_correction(snapshot: Snapshot, quantity: Decimal, price: Price) -> Snapshot:
    return replace(
        snapshot,
        totals={**snapshot.totals, PREVIEW_LINE: quantity},
        prices={**snapshot.prices, PREVIEW_LINE: price.id},
    )
