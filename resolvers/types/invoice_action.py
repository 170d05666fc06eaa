"""The actions that Support can take on an invoice, and the reasons that block them."""

from datetime import UTC, datetime
from enum import StrEnum

import strawberry

from billing.errors import ErrorCode, Refused
from billing.invoicing.remote_invoice import DRAFT
from billing.invoicing.snapshot import Snapshot
from billing.stripe.records import InvoiceRecord
from resolvers.context import Context
from resolvers.types.drift import drift_lines
from schema.decorators import graphql_enum, graphql_type


@graphql_enum(
    SYNC="Send pending usage to Stripe now: `syncBilling`.",
    ADJUST="Adjust the usage of the invoice's month: `adjustUsage`.",
    HOLD="Place a hold on the customer's billing: `holdBilling`.",
    RELEASE="Release the hold on the customer's billing: `releaseBilling`.",
    FINALIZE="Finalize the draft, so that Stripe sends it to the customer: `finalizeInvoice`.",
)
class InvoiceActionKind(StrEnum):
    """An action that Support can take on an invoice."""

    SYNC = "SYNC"
    ADJUST = "ADJUST"
    HOLD = "HOLD"
    RELEASE = "RELEASE"
    FINALIZE = "FINALIZE"


@graphql_enum(
    NOT_DRAFT="The invoice is finalized; refunds and credit notes are made in Stripe's Dashboard.",
    SYNC_IN_PROGRESS="A sync is writing to Stripe; try again when it has finished.",
    ON_HOLD="Billing is on hold; call `releaseBilling` first.",
    NOT_ON_HOLD="There is no hold to release.",
    DRIFT="Stripe and the ledger differ; call `repairDrift` first.",
    PERIOD_OPEN="The month has not ended; usage is still being counted.",
    PERIOD_CLOSED="The ledger has closed the month; adjust the current month instead.",
    NOT_OURS="The invoice was made by hand in Stripe and bills no recorded usage; edit it in Stripe.",
)
class InvoiceBlocker(StrEnum):
    """Reason why an action is blocked now."""

    NOT_DRAFT = "NOT_DRAFT"
    SYNC_IN_PROGRESS = "SYNC_IN_PROGRESS"
    ON_HOLD = "ON_HOLD"
    NOT_ON_HOLD = "NOT_ON_HOLD"
    DRIFT = "DRIFT"
    PERIOD_OPEN = "PERIOD_OPEN"
    PERIOD_CLOSED = "PERIOD_CLOSED"
    NOT_OURS = "NOT_OURS"


@graphql_type
class InvoiceAction:
    """An action on an invoice, and the reasons that block it now."""

    action: InvoiceActionKind = strawberry.field(description="Kind of the action.")
    blocked_by: list[InvoiceBlocker] = strawberry.field(
        description="All reasons that block the action; empty when it is available.",
    )


async def available_actions(context: Context, invoice: InvoiceRecord) -> list[InvoiceAction]:
    """Every action on *invoice*, in the usual order, with its blockers."""
    is_on_hold = (await invoice_snapshot(context, invoice)).hold is not None
    if_finalized = [] if invoice.status == DRAFT else [InvoiceBlocker.NOT_DRAFT]
    if_on_hold = [InvoiceBlocker.ON_HOLD] if is_on_hold else []
    blockers_by_action = {
        InvoiceActionKind.SYNC: if_finalized + if_on_hold,
        InvoiceActionKind.ADJUST: if_finalized or await _adjust_blockers(context, invoice),
        InvoiceActionKind.HOLD: if_on_hold,
        InvoiceActionKind.RELEASE: [] if is_on_hold else [InvoiceBlocker.NOT_ON_HOLD],
        InvoiceActionKind.FINALIZE: await finalize_blockers(context, invoice),
    }
    return [
        InvoiceAction(action=kind, blocked_by=blockers)
        for kind, blockers in blockers_by_action.items()
    ]


async def invoice_snapshot(context: Context, invoice: InvoiceRecord) -> Snapshot:
    """Ledger snapshot of the month that *invoice* bills; of the current month for one made by hand."""
    if invoice.period is None:
        return await context.loaders.snapshot.load(invoice.customer)
    return await context.loaders.period.load((invoice.customer, invoice.period))


async def _adjust_blockers(context: Context, invoice: InvoiceRecord) -> list[InvoiceBlocker]:
    """Blockers of an adjustment of *invoice*, which is a draft."""
    if invoice.period is None:
        return [InvoiceBlocker.NOT_OURS]
    try:
        await context.uncached_services().ledger.adjustable_period(invoice.customer, invoice.period)
    except Refused as refusal:
        busy = refusal.code is ErrorCode.SYNC_IN_PROGRESS
        return [InvoiceBlocker.SYNC_IN_PROGRESS if busy else InvoiceBlocker.PERIOD_CLOSED]
    return []


async def finalize_blockers(context: Context, invoice: InvoiceRecord) -> list[InvoiceBlocker]:
    """Blockers of finalizing *invoice*, the most obvious first."""
    if invoice.status != DRAFT:
        return [InvoiceBlocker.NOT_DRAFT]
    snapshot = await invoice_snapshot(context, invoice)
    ended = invoice.period is None or invoice.period.end <= datetime.now(UTC)
    differences = invoice.period and await drift_lines(context.uncached_services(), snapshot)
    blockers = {
        InvoiceBlocker.PERIOD_OPEN: not ended,
        InvoiceBlocker.ON_HOLD: snapshot.hold is not None,
        InvoiceBlocker.SYNC_IN_PROGRESS: snapshot.batch is not None,
        InvoiceBlocker.DRIFT: any(line.key is not None for line in differences or ()),
    }
    return [blocker for blocker, stands in blockers.items() if stands]
