"""Invoices: their lines, and the actions that Support can take on them."""

from enum import StrEnum
from typing import NamedTuple

from billing.errors import ErrorCode, Refused
from billing.invoicing.remote_invoice import DRAFT
from billing.invoicing.snapshot import PeriodState, Snapshot
from billing.pagination import MAX_PAGE_SIZE, PageRequest
from billing.stripe.records import InvoiceRecord, LineRecord
from resolvers.context import Context
from resolvers.drift import drift_lines


class InvoiceActionKind(StrEnum):
    """An action that Support can take on an invoice."""

    SYNC = "SYNC"
    ADJUST = "ADJUST"
    HOLD = "HOLD"
    RELEASE = "RELEASE"
    FINALIZE = "FINALIZE"


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


class FoundLine(NamedTuple):
    """A *line* of an *invoice*."""

    line: LineRecord
    invoice: InvoiceRecord


async def find_line(context: Context, line_id: str) -> FoundLine | None:
    """The line with this id, if it was shown recently and the viewer may see it."""
    location = await context.bypass_loaders().line_index.find(line_id)
    if location is None or not context.viewer.may_see(location.customer):
        return None
    invoice = await context.loaders.invoice(location.invoice)
    after, more = None, invoice is not None
    while invoice and more:
        request = PageRequest(MAX_PAGE_SIZE, after)
        page = await context.loaders.lines(invoice.value.id, request)
        for line in page.items:
            if line.id == line_id:
                return FoundLine(line, invoice.value)
        after, more = page.items[-1].id if page.items else None, page.has_more
    return None


async def available_actions(
    context: Context, invoice: InvoiceRecord
) -> dict[InvoiceActionKind, list[InvoiceBlocker]]:
    """Every action on *invoice*, in the usual order, with its blockers."""
    is_on_hold = (await _load_snapshot(context, invoice)).hold is not None
    if_finalized = [] if invoice.status == DRAFT else [InvoiceBlocker.NOT_DRAFT]
    if_on_hold = [InvoiceBlocker.ON_HOLD] if is_on_hold else []
    return {
        InvoiceActionKind.SYNC: if_finalized + if_on_hold,
        InvoiceActionKind.ADJUST: if_finalized or await _adjust_blockers(context, invoice),
        InvoiceActionKind.HOLD: if_on_hold,
        InvoiceActionKind.RELEASE: [] if is_on_hold else [InvoiceBlocker.NOT_ON_HOLD],
        InvoiceActionKind.FINALIZE: await finalize_blockers(context, invoice),
    }


async def _load_snapshot(context: Context, invoice: InvoiceRecord) -> Snapshot:
    """Ledger snapshot of the month that *invoice* bills; of the current month for one made by hand."""
    if invoice.period is None:
        return await context.loaders.snapshot(invoice.customer)
    return await context.loaders.period(invoice.customer, invoice.period)


async def _adjust_blockers(context: Context, invoice: InvoiceRecord) -> list[InvoiceBlocker]:
    """Blockers of an adjustment of *invoice*, which is a draft."""
    if invoice.period is None:
        return [InvoiceBlocker.NOT_OURS]
    try:
        await context.bypass_loaders().ledger.adjustments.adjustable_period(
            invoice.customer, invoice.period
        )
    except Refused as refusal:
        syncing = refusal.code is ErrorCode.SYNC_IN_PROGRESS
        return [InvoiceBlocker.SYNC_IN_PROGRESS if syncing else InvoiceBlocker.PERIOD_CLOSED]
    return []


async def finalize_blockers(context: Context, invoice: InvoiceRecord) -> list[InvoiceBlocker]:
    """Blockers of finalizing *invoice*, the most obvious first."""
    if invoice.status != DRAFT:
        return [InvoiceBlocker.NOT_DRAFT]
    snapshot = await _load_snapshot(context, invoice)
    # By the ledger's clock: this machine's may be wrong.
    ended = invoice.period is None or invoice.period.end.timestamp() * 1000 <= snapshot.now_ms
    if ended and invoice.period and await _is_closed(context, snapshot):
        return [InvoiceBlocker.PERIOD_CLOSED]
    differences = invoice.period and await drift_lines(context.bypass_loaders(), snapshot)
    blockers = {
        InvoiceBlocker.PERIOD_OPEN: not ended,
        InvoiceBlocker.ON_HOLD: snapshot.hold is not None,
        InvoiceBlocker.SYNC_IN_PROGRESS: snapshot.batch is not None,
        InvoiceBlocker.DRIFT: any(line.key is not None for line in differences or ()),
    }
    return [blocker for blocker, applies in blockers.items() if applies]


async def _is_closed(context: Context, snapshot: Snapshot) -> bool:
    """True if the ledger has sealed the month of *snapshot*, or does not have it: nothing finalizes its draft."""
    if snapshot.state is PeriodState.SEALED:
        return True
    periods = context.bypass_loaders().ledger.periods
    return snapshot.period not in await periods.list_retained(snapshot.customer)
