"""The steps that open and closing periods share.

A step returns None if it changed something and the flush should decide again, else the `FlushResult`.
"""

from dataclasses import dataclass

from billing.amount_limit import MAX_AMOUNT, excess
from billing.invoicing import diff, requests
from billing.invoicing.remote_invoice import RemoteInvoice
from billing.invoicing.request_batch import PlannedLine
from billing.money import format_decimal
from billing.usage import LineKey
from workers.flush.deleted_customer import is_settled, unbillable_result
from workers.flush.execution import FlushExecution
from workers.flush.outcome import FlushResult, parked_result


@dataclass(frozen=True, slots=True)
class LinePlan:
    """The desired lines of the invoice, and the changes that lead there."""

    lines: dict[LineKey, PlannedLine]
    diff: diff.Diff


async def plan_lines(execution: FlushExecution) -> LinePlan | None:
    """Plan against the fetched invoice, else the stored lines; None if there is no room for a line."""
    snapshot, invoice = execution.snapshot, execution.invoice
    room = diff.MAX_LINES - (0 if invoice is None else invoice.foreign_line_count)
    if room <= 0 and any(snapshot.totals.values()):
        return None
    lines = diff.desired_lines(snapshot, await execution.prices(), room=max(room, 1))
    current = snapshot.lines.items() if invoice is None else invoice.own_lines
    return LinePlan(lines, diff.diff_lines(lines, current))


async def write_step(execution: FlushExecution, plan: LinePlan) -> FlushResult | None:
    """Prepare the requests of *plan*; a deleted customer without an invoice gets none any more.

    Parks if an amount is too large for Stripe, and perhaps for the stored requests.
    """
    snapshot = execution.snapshot
    if too_much := _excess(execution, plan):
        return parked_result(
            "amount_too_large", f"{too_much} Take it off with usage of the opposite sign."
        )
    no_invoice = snapshot.customer_deleted and snapshot.invoice is None
    if plan.diff and no_invoice and not is_settled(execution, plan.lines):
        return await unbillable_result(execution)
    if plan.diff and not no_invoice:
        await _prepare_requests(execution, plan)
    else:
        await mark_synced(execution)
    return None


def _excess(execution: FlushExecution, plan: LinePlan) -> str | None:
    """Return which line or total is too large; each delta may be within its limit."""
    snapshot = execution.snapshot
    amounts = {
        f"{format_decimal(line.quantity)} of {key!r}": line.amount
        for key, line in plan.lines.items()
    }
    amounts[f"The bill of {snapshot.period}"] = sum(amounts.values())
    found = ((what, amount) for what, amount in amounts.items() if abs(amount) > MAX_AMOUNT)
    return next((excess(what, amount, snapshot.currency) for what, amount in found), None)


async def _prepare_requests(execution: FlushExecution, plan: LinePlan) -> None:
    """Prepare the creation of the draft if there is none, else the requests of *plan*."""
    snapshot = execution.snapshot
    if snapshot.invoice is None:
        await execution.prepare(requests.create(snapshot))
        return
    prices, seq = await execution.prices(), execution.next_seq()
    batch = requests.edit_lines(snapshot, plan.diff, plan.lines, prices, seq=seq)
    await execution.prepare(batch)


async def mark_synced(execution: FlushExecution) -> None:
    """Commit that Stripe agrees with this snapshot."""
    snapshot, invoice = execution.snapshot, execution.invoice
    await execution.commit(
        lines=snapshot.lines if invoice is None else invoice.lines_by_key,
        synced_to=(snapshot.version, snapshot.verify_requested),
    )


def surplus_draft(execution: FlushExecution) -> RemoteInvoice | None:
    """Return a surplus draft of the period; a create that arrived very late leaves one."""
    invoices = execution.invoices if execution.is_final else execution.other_invoices or ()
    return next((invoice for invoice in invoices if invoice.is_draft), None)


async def delete_draft(execution: FlushExecution, draft: RemoteInvoice) -> FlushResult | None:
    """Delete *draft*; park if it has foreign lines, because a person has to decide then."""
    snapshot = execution.snapshot
    if draft.foreign_line_count:
        return parked_result(
            "two_drafts",
            f"Draft {draft.id} is one too many for {snapshot.period} and holds lines that are not"
            " the gateway's; move or delete them.",
        )
    lines = {
        key: PlannedLine(line.quantity, line.price, line.amount)
        for key, line in snapshot.lines.items()
        if draft.id != snapshot.invoice
    }
    seq = execution.next_seq()
    await execution.prepare(requests.delete(snapshot, draft.id, lines, seq=seq))
    return None
