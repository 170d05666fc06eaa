"""Support closes a draft of a month that has ended, without waiting for the worker that would."""

# ruff: noqa: A002 the contract calls the argument `input`

import asyncio
import time
from collections.abc import Mapping, Sequence
from uuid import uuid4

from billing.budget import Lane
from billing.errors import ErrorCode, Refused
from billing.invoicing.metadata_keys import OUR_KEYS
from billing.invoicing.snapshot import PeriodState
from billing.stripe.records import InvoiceRecord
from billing.usage import CustomerId, Period
from resolvers.audited import Act
from resolvers.context import Context, Info
from resolvers.mutations.payloads import FinalizeInvoicePayload
from resolvers.node_lookup import find, not_found
from resolvers.types.invoice import Invoice
from resolvers.types.invoice_action import InvoiceBlocker, finalize_blockers
from resolvers.user_errors import refusing
from resolvers.validation import reasoned
from schema.inputs import FinalizeInvoiceInput

PATIENCE = 5.0  # seconds that Support is kept waiting for the bill to be final
GLANCE = 0.1  # seconds between looks at it

REFUSALS: Mapping[InvoiceBlocker, tuple[ErrorCode, str]] = {
    InvoiceBlocker.NOT_DRAFT: (
        ErrorCode.NOT_DRAFT,
        "This invoice is finalized already; corrections are credit notes in Stripe's Dashboard.",
    ),
    InvoiceBlocker.PERIOD_OPEN: (
        ErrorCode.INVALID_INPUT,
        "The month has not ended and usage is still being counted; its invoice closes by itself.",
    ),
    InvoiceBlocker.ON_HOLD: (
        ErrorCode.ON_HOLD,
        "Billing is on hold; call releaseBilling first.",
    ),
    InvoiceBlocker.SYNC_IN_PROGRESS: (
        ErrorCode.SYNC_IN_PROGRESS,
        "Stripe is being told of usage right now; ask again in a moment.",
    ),
    InvoiceBlocker.DRIFT: (
        ErrorCode.DRIFT,
        "Stripe shows something else than the ledger counts; see `drift`, then call repairDrift.",
    ),
}


@refusing
async def finalize_invoice(info: Info, input: FinalizeInvoiceInput) -> FinalizeInvoicePayload:
    """Support only: close a draft after a last sync; Stripe then collects it.

    Waits a few seconds; an `invoice` that is a draft still is closed by a worker as soon as it can be.
    """
    context = info.context
    found = await find(context, input.invoice_id)
    if not isinstance(found, Invoice):
        raise not_found("invoice", input.invoice_id, "invoiceId")
    invoice = found.record
    act = Act(context, invoice.customer, "finalizeInvoice", reasoned(input.reason))
    blockers = await finalize_blockers(context, invoice)
    async with act.noted({"invoice": invoice.id, "status": invoice.status}) as noted:
        _must_be_free(blockers)
        if invoice.period is None:
            await _finalize_foreign(context, invoice)
        else:
            await _close(context, invoice.customer, invoice.period)
        context.renew()
        now = await Invoice.find(context, invoice.id)
        noted.after = {"invoice": invoice.id, "status": now.status.value if now else None}
    return FinalizeInvoicePayload(invoice=now)


def _must_be_free(blockers: Sequence[InvoiceBlocker]) -> None:
    for blocker in blockers:
        code, message = REFUSALS[blocker]
        raise Refused(code, message, ("input", "invoiceId"))


async def _close(context: Context, customer: CustomerId, period: Period) -> None:
    """Cut the month and wake its closing flush, which checks once more, finalizes and seals; wait for it a while."""
    ledger = context.services.ledger
    await ledger.close(customer, period)
    await context.services.wakeups.flush(customer, period, Lane.SUPPORT)
    state, until = PeriodState.CLOSING, time.monotonic() + PATIENCE
    while state is not PeriodState.SEALED and time.monotonic() < until:
        await asyncio.sleep(GLANCE)
        state = (await ledger.peek(customer, period)).state


async def _finalize_foreign(context: Context, invoice: InvoiceRecord) -> None:
    """Finalize a draft that is not of our making: nothing in the ledger waits for it."""
    cache = context.services.cache
    await cache.intend_write(invoice.id, invoice.customer)
    try:
        await context.services.stripe.write(
            f"/v1/invoices/{invoice.id}/finalize",
            {"auto_advance": True},
            key=f"{OUR_KEYS}finalize:{invoice.id}:{uuid4()}",
            lane=Lane.SUPPORT,
        )
    finally:
        await cache.written(invoice.id, invoice.customer)
