"""What Support can do about an invoice now and, for what it cannot, why."""

from datetime import UTC, datetime
from enum import StrEnum

import strawberry

from billing.errors import ErrorCode, Refused
from billing.invoicing.remote_invoice import DRAFT
from billing.invoicing.snapshot import Snapshot
from billing.stripe.records import InvoiceRecord
from resolvers.context import Context
from resolvers.types.drift import drifted
from schema.decorators import graphql_enum, graphql_type


@graphql_enum(
    SYNC="Bring Stripe up to date now: `syncBilling`.",
    ADJUST="Correct what is billed: `adjustUsage` with the month of this invoice.",
    HOLD="Stop the billing of this customer: `holdBilling`.",
    RELEASE="Let billing go on: `releaseBilling`.",
    FINALIZE="Close the draft and send it to the customer: `finalizeInvoice`.",
)
class InvoiceActionKind(StrEnum):
    """What Support can do about an invoice."""

    SYNC = "SYNC"
    ADJUST = "ADJUST"
    HOLD = "HOLD"
    RELEASE = "RELEASE"
    FINALIZE = "FINALIZE"


@graphql_enum(
    NOT_DRAFT="It is finalized: refunds and credit notes are made in Stripe's Dashboard.",
    SYNC_IN_PROGRESS="Stripe is being told right now; ask again when that is done.",
    ON_HOLD="Billing is on hold; `releaseBilling` first.",
    NOT_ON_HOLD="There is no hold to release.",
    DRIFT="Stripe shows something else than we count; `repairDrift` first.",
    PERIOD_OPEN="The month has not ended; usage is still being counted.",
    PERIOD_CLOSED="Its month's bill is final for the ledger; a correction goes on the current one.",
    NOT_OURS="Somebody made it in Stripe, and it bills no usage of ours: edit it there.",
)
class InvoiceBlocker(StrEnum):
    """Why something cannot be done now."""

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
    """One thing that Support can do, and why not if it cannot be done now."""

    action: InvoiceActionKind = strawberry.field(description="What.")
    blocked_by: list[InvoiceBlocker] = strawberry.field(
        description="Empty when it can be done now; else everything that stands in the way.",
    )


async def actions(context: Context, invoice: InvoiceRecord) -> list[InvoiceAction]:
    """Everything that can be done about *invoice*, in the order in which it is usually done."""
    held = (await snapshot_of(context, invoice)).hold is not None
    final = [] if invoice.status == DRAFT else [InvoiceBlocker.NOT_DRAFT]
    on_hold = [InvoiceBlocker.ON_HOLD] if held else []
    standing = {
        InvoiceActionKind.SYNC: final + on_hold,
        InvoiceActionKind.ADJUST: final or await _adjust_blockers(context, invoice),
        InvoiceActionKind.HOLD: on_hold,
        InvoiceActionKind.RELEASE: [] if held else [InvoiceBlocker.NOT_ON_HOLD],
        InvoiceActionKind.FINALIZE: await finalize_blockers(context, invoice),
    }
    return [InvoiceAction(action=kind, blocked_by=blockers) for kind, blockers in standing.items()]


async def snapshot_of(context: Context, invoice: InvoiceRecord) -> Snapshot:
    """The ledger's side of *invoice*: its own month, or the current one when it is not of our making."""
    if invoice.period is None:
        return await context.loaders.snapshot.load(invoice.customer)
    return await context.loaders.period.load((invoice.customer, invoice.period))


async def _adjust_blockers(context: Context, invoice: InvoiceRecord) -> list[InvoiceBlocker]:
    """What keeps *invoice*, a draft, from being corrected."""
    if invoice.period is None:
        return [InvoiceBlocker.NOT_OURS]
    try:
        await context.services.ledger.correctable(invoice.customer, invoice.period)
    except Refused as refusal:
        busy = refusal.code is ErrorCode.SYNC_IN_PROGRESS
        return [InvoiceBlocker.SYNC_IN_PROGRESS if busy else InvoiceBlocker.PERIOD_CLOSED]
    return []


async def finalize_blockers(context: Context, invoice: InvoiceRecord) -> list[InvoiceBlocker]:
    """What keeps *invoice* from being finalized, the plainest first."""
    if invoice.status != DRAFT:
        return [InvoiceBlocker.NOT_DRAFT]
    snapshot = await snapshot_of(context, invoice)
    ended = invoice.period is None or invoice.period.end <= datetime.now(UTC)
    drifting = invoice.period and await drifted(context.services, snapshot)
    standing = {
        InvoiceBlocker.PERIOD_OPEN: not ended,
        InvoiceBlocker.ON_HOLD: snapshot.hold is not None,
        InvoiceBlocker.SYNC_IN_PROGRESS: snapshot.flight is not None,
        InvoiceBlocker.DRIFT: any(line.key is not None for line in drifting or ()),
    }
    return [blocker for blocker, stands in standing.items() if stands]
