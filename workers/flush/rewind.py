"""A ledger that has lost usage: nothing is lowered or given back until it has caught up, or a person accepts it.

Producers send their usage again; the customer is on hold until Stripe shows nothing more than the ledger has.
"""

from dataclasses import replace

import structlog

from billing.invoicing import rewind
from billing.invoicing.remote_invoice import RemoteInvoice
from billing.invoicing.rewind import LostUsage
from billing.invoicing.snapshot import GATEWAY, Hold, Snapshot
from billing.ledger.books import Difference, DifferenceKind
from billing.usage import REST_LINE
from workers.flush.execution import FlushExecution
from workers.flush.on_hold import on_hold_step
from workers.flush.outcome import FlushOutcome, FlushResult

log = structlog.get_logger(__name__)


async def review_step(execution: FlushExecution) -> FlushResult | None:
    """Put the customer on hold if an invoice shows usage that the ledger has lost; None if it does not.

    The hold is placed once per unknown flush: after its release by a person the ledger's figures count.
    """
    listed = execution.other_invoices is not None
    without_invoice = execution.snapshot.rewound and listed  # a person has deleted the draft
    if execution.reviewed or not (execution.invoices or without_invoice):
        return None
    await _record_in_books(execution)
    invoice, lost = await _find_loss(execution)
    if invoice is not None and lost:
        await _commit(execution, rewound=True)  # fails if another worker has written meanwhile
        hold = await _place_hold(execution, invoice, lost)
        if hold is not None:
            result = await on_hold_step(execution)
            return replace(result, delay_ms=execution.context.policy.rewind_recheck_ms)
        log.warning("ledger.loss_accepted", **_names(execution.snapshot), invoice=invoice.id)
        await _book(execution, 0)
    await _end_review(execution)
    return None


async def recovery_step(execution: FlushExecution) -> FlushResult | None:
    """Release the hold if the ledger has caught up; Stripe is read once that is seen in the ledger, or on request."""
    snapshot, ledger = execution.snapshot, execution.context.ledger
    waiting = FlushResult(FlushOutcome.WAITING, execution.context.policy.rewind_recheck_ms)
    lost_before = await _lost_usage(execution, snapshot.lines.items())
    if lost_before and not snapshot.verify_pending:
        return waiting
    if execution.other_invoices is None:
        await execution.fetch_invoices(listing=True)
    invoice, lost = await _find_loss(execution)
    if invoice is not None and lost:
        await _commit(execution, rewound=True)
        return waiting
    await _end_review(execution)
    active = await ledger.holds.release(snapshot.customer, snapshot.hold)
    execution.snapshot = replace(execution.snapshot, hold=active)
    log.info("ledger.recovered", **_names(snapshot))
    return None


async def _find_loss(
    execution: FlushExecution,
) -> tuple[RemoteInvoice | None, list[LostUsage]]:
    """Return the invoice that an unknown flush wrote, and the lost usage that any invoice shows."""
    invoice = rewind.unknown_flush(execution.snapshot, execution.invoices)
    if invoice is None:
        return None, []
    lines = [line for fetched in execution.invoices for line in fetched.own_lines]
    return invoice, await _lost_usage(execution, lines)


async def _lost_usage(execution: FlushExecution, lines: rewind.Lines) -> list[LostUsage]:
    lines = list(lines)
    rolled_up = any(key == REST_LINE for key, _ in lines)
    prices = await execution.prices() if rolled_up else {}
    return rewind.lost_usage(execution.snapshot, lines, prices)


async def _place_hold(
    execution: FlushExecution, invoice: RemoteInvoice, lost: list[LostUsage]
) -> Hold | None:
    """Place the hold; return the active one, None if a person has released it."""
    snapshot = execution.snapshot
    hold = await execution.context.ledger.holds.place_once(
        snapshot.customer,
        rewind.hold_reason(snapshot, invoice, lost),
        GATEWAY,
        cause=f"rewind of {snapshot.period} at {invoice.seq} {invoice.version}",
    )
    if hold is not None:
        amount = rewind.money_at_stake(snapshot, lost).formatted
        log.error("ledger.rewound", **_names(snapshot), invoice=invoice.id, amount=amount)
    return hold


async def _end_review(execution: FlushExecution) -> None:
    """Learn the last flush that the invoice shows, so that it is no longer unknown, and clear the mark."""
    execution.reviewed = True
    if execution.invoice is not None:
        seq, version = execution.next_seq() - 1, rewind.latest_version(execution.invoices)
        execution.snapshot = replace(execution.snapshot, seq=seq, stripe_version=version)
    if execution.snapshot.rewound:
        await _commit(execution, rewound=False)
        await _book(execution, 0)


async def _record_in_books(execution: FlushExecution) -> None:
    """Record what Stripe shows beyond the ledger, if the ledger never put it there.

    That a flush wrote it is no condition here: the books show a loss that the review above does not recognize.
    """
    sent = execution.sent
    lines = [
        (key, line)
        for invoice in execution.invoices
        for key, line in invoice.lines_by_key.items()
        if key not in sent
    ]
    if lost := await _lost_usage(execution, lines):
        amount = rewind.money_at_stake(execution.snapshot, lost).minor
        log.error("books.unbalanced", **_names(execution.snapshot), amount=-amount)
        await _book(execution, -amount)


async def _book(execution: FlushExecution, amount: int) -> None:
    snapshot = execution.snapshot
    found = Difference(snapshot.customer, snapshot.period, DifferenceKind.LOST, amount)
    await execution.context.ledger.books.record([found])


async def _commit(execution: FlushExecution, *, rewound: bool) -> None:
    """Store whether usage is lost, and Stripe's lines, so that recovery is seen without reading them again."""
    execution.snapshot = replace(execution.snapshot, rewound=rewound)
    invoice = execution.invoice
    lines = execution.snapshot.lines if invoice is None else invoice.lines_by_key
    await execution.commit(lines=lines, synced_to=("", execution.snapshot.verify_requested))


def _names(snapshot: Snapshot) -> dict[str, str]:
    return {"customer": snapshot.customer, "period": str(snapshot.period)}
