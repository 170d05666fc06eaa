"""The end of a period: send the remaining usage, wait until no request is in doubt, finalize, seal.

There is one way to seal: read the finalized invoices and carry what they left unbilled into the next open
period. It does not matter who finalized them, or what a person edited before.
"""

from collections.abc import Iterable

import structlog

from billing.invoicing import carry_forward, requests
from billing.invoicing.remote_invoice import VOID
from billing.invoicing.snapshot import Snapshot
from billing.ledger import Ledger
from workers.flush.deleted_customer import is_settled
from workers.flush.execution import FlushExecution
from workers.flush.outcome import RETRY_NOW, FlushOutcome, FlushResult, no_room_result
from workers.flush.steps import (
    LinePlan,
    delete_draft,
    mark_synced,
    plan_lines,
    surplus_draft,
    write_step,
)
from workers.flush.voided import hold_voided

log = structlog.get_logger(__name__)


async def close_ended_periods(
    ledger: Ledger,
    shards: Iterable[int],
    *,
    now_ms: int,
    settle_ms: int,
    limit: int = 500,
) -> int:
    """Close the periods that ended more than *settle_ms* ago; return their number. Idempotent."""
    closed = 0
    for shard in shards:
        if ended := await ledger.periods.list_ended(shard, now_ms - settle_ms, limit):
            closed += await ledger.periods.close_all(ended)
    if closed:
        log.info("period.closed", periods=closed)
    return closed


async def closing_step(execution: FlushExecution) -> FlushResult | None:
    """Run one step for a closing period."""
    not_fetched = execution.snapshot.invoice is not None and execution.invoice is None
    if not_fetched or execution.other_invoices is None:
        await execution.fetch_invoices(listing=True)
        return None
    if execution.grace_ms and not execution.is_final:
        return FlushResult(FlushOutcome.WAITING, execution.grace_ms)
    if draft := surplus_draft(execution):
        return await delete_draft(execution, draft)
    if execution.is_final:
        return await _seal(execution)
    return await _complete_draft(execution)


async def _complete_draft(execution: FlushExecution) -> FlushResult | None:
    plan = await plan_lines(execution)
    if plan is None:
        return no_room_result(execution.snapshot.invoice)
    empty = execution.invoice is None or not execution.invoice.lines
    if (empty and not plan.diff) or is_settled(execution, plan.lines):
        return await _end_without_bill(execution)
    if plan.diff:
        return await write_step(execution, plan)
    if not execution.snapshot.up_to_date:
        await mark_synced(execution)
        return None
    return await _finalize(execution, plan)


async def _end_without_bill(execution: FlushExecution) -> FlushResult | None:
    """Delete the draft, if there is one, then seal: nothing is owed."""
    if execution.invoice is not None:
        return await delete_draft(execution, execution.invoice)
    return await _seal(execution, without_bill=True)


async def _finalize(execution: FlushExecution, plan: LinePlan) -> FlushResult | None:
    """Finalize, once no request has been in doubt for the quiet time, and with all adjustments."""
    snapshot = execution.snapshot
    quiet_at = snapshot.in_doubt_since_ms + execution.context.policy.quiet_ms
    if snapshot.now_ms <= quiet_at:
        return FlushResult(FlushOutcome.WAITING, quiet_at - snapshot.now_ms + 1)
    batch = requests.finalize(snapshot, plan.lines, seq=execution.next_seq())
    return None if await execution.prepare(batch) else RETRY_NOW


async def _seal(execution: FlushExecution, *, without_bill: bool = False) -> FlushResult:
    """Seal by the finalized invoices; if an adjustment came in meanwhile, flush again.

    *without_bill*: there is no invoice and nothing is owed, so nothing is carried.
    """
    ledger, snapshot, invoices = execution.context.ledger, execution.snapshot, execution.invoices
    for invoice in invoices:
        if invoice.status == VOID:
            await hold_voided(
                execution.context.stripe, ledger, snapshot, invoice.id, execution.lane
            )
    lines = [line for invoice in invoices for line in invoice.own_lines]
    current = dict(reversed(lines))
    if (current, execution.is_final) != (snapshot.lines, snapshot.final):
        await execution.commit(lines=current)  # from here on the period accepts no adjustment
    snapshot = execution.snapshot
    prices = await execution.prices(set(carry_forward.price_ids(snapshot, lines).values()))
    residuals = {} if without_bill else carry_forward.residuals(snapshot, lines, prices)
    if not await ledger.periods.seal(
        execution.lease, version=snapshot.version, residuals=residuals
    ):
        return RETRY_NOW
    _log_sealed(snapshot, len(residuals))
    return FlushResult(FlushOutcome.SEALED)


def _log_sealed(snapshot: Snapshot, carried: int) -> None:
    log.info(
        "period.sealed",
        customer=snapshot.customer,
        period=str(snapshot.period),
        invoice=snapshot.invoice,
        carried=carried,
    )
