"""`finalizeInvoice`: Support finalizes a draft of a month that has ended, before its scheduled closing."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from uuid import uuid4

from billing.budget import Lane
from billing.errors import ErrorCode, Refused
from billing.invoicing.metadata_keys import IDEMPOTENCY_PREFIX
from billing.invoicing.snapshot import PeriodState
from billing.stripe.records import InvoiceRecord
from billing.usage import CustomerId, Period
from resolvers.audited import AuditedAction
from resolvers.context import Context
from resolvers.dataloaders.stripe import Loaded
from resolvers.invoices import InvoiceBlocker, finalize_blockers
from resolvers.node_lookup import find_invoice, not_found
from resolvers.validation import validate_reason

MAX_WAIT_SECONDS = 5.0  # of waiting for the finalized invoice
POLL_SECONDS = 0.1  # between reads of the period's state

BLOCKER_ERRORS: Mapping[InvoiceBlocker, tuple[ErrorCode, str]] = {
    InvoiceBlocker.NOT_DRAFT: (
        ErrorCode.NOT_DRAFT,
        "This invoice is finalized already; corrections are credit notes in Stripe's Dashboard.",
    ),
    InvoiceBlocker.PERIOD_OPEN: (
        ErrorCode.INVALID_INPUT,
        "The month has not ended and usage is still being counted; its invoice is finalized automatically.",
    ),
    InvoiceBlocker.ON_HOLD: (
        ErrorCode.ON_HOLD,
        "Billing is on hold; call releaseBilling first.",
    ),
    InvoiceBlocker.SYNC_IN_PROGRESS: (
        ErrorCode.SYNC_IN_PROGRESS,
        "A sync of this month is running; try again in a moment.",
    ),
    InvoiceBlocker.PERIOD_CLOSED: (
        ErrorCode.PERIOD_CLOSED,
        "The ledger has no open bill of {period}; if this copy is owed, finalize it in Stripe's Dashboard.",
    ),
    InvoiceBlocker.DRIFT: (
        ErrorCode.DRIFT,
        "The draft in Stripe differs from the ledger; see `drift`, then call repairDrift.",
    ),
}


async def finalize_invoice(
    context: Context, invoice_id: str, reason: str
) -> Loaded[InvoiceRecord] | None:
    """Finalize the draft and return it as Stripe has it then; Refused with the code of the first blocker."""
    draft = await find_invoice(context, invoice_id)
    if draft is None:
        raise not_found("invoice", invoice_id, "invoiceId")
    invoice = draft.value
    action = AuditedAction(context, invoice.customer, "finalizeInvoice", validate_reason(reason))
    blockers = await finalize_blockers(context, invoice)
    async with action.run({"invoice": invoice.id, "status": invoice.status}) as audit:
        _require_no_blockers(blockers, invoice.period)
        if invoice.period is None:
            await _finalize_foreign(context, invoice)
        else:
            await _close_period(context, invoice.customer, invoice.period)
        context.reset_loaders()
        finalized = await context.loaders.invoice(invoice.id)
        status = finalized.value.status if finalized else None
        audit.after = {"invoice": invoice.id, "status": status}
    return finalized


def _require_no_blockers(blockers: Sequence[InvoiceBlocker], period: Period | None) -> None:
    for blocker in blockers:
        code, message = BLOCKER_ERRORS[blocker]
        raise Refused(code, message.format(period=period), ("invoiceId",))


async def _close_period(context: Context, customer: CustomerId, period: Period) -> None:
    """Close the period, enqueue its last flush (which checks again, finalizes and seals) and wait for it."""
    services = context.bypass_loaders()
    await services.ledger.periods.close(customer, period)
    await services.job_queue.enqueue_flush(customer, period, Lane.SUPPORT)
    state, deadline = PeriodState.CLOSING, time.monotonic() + MAX_WAIT_SECONDS
    while state is not PeriodState.SEALED and time.monotonic() < deadline:
        await asyncio.sleep(POLL_SECONDS)
        state = (await services.ledger.periods.snapshot(customer, period)).state


async def _finalize_foreign(context: Context, invoice: InvoiceRecord) -> None:
    """Finalize a draft that the gateway did not create: the ledger has no state for it."""
    services = context.bypass_loaders()
    await services.cache.begin_write(invoice.id, invoice.customer)
    try:
        await services.stripe.write(
            f"/v1/invoices/{invoice.id}/finalize",
            {"auto_advance": True},
            key=f"{IDEMPOTENCY_PREFIX}finalize:{invoice.id}:{uuid4()}",
            lane=Lane.SUPPORT,
        )
    finally:
        await services.cache.end_write(invoice.id, invoice.customer)
