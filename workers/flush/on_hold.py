"""While a hold stands, nothing is sent to Stripe, and no draft there may be finalized by itself."""

from contextlib import suppress

import structlog

from billing.errors import OutcomeUnknown, StripeRejected
from billing.invoicing.metadata_keys import IDEMPOTENCY_PREFIX
from billing.invoicing.remote_invoice import DRAFT
from billing.invoicing.request_batch import RequestKind, StripeRequest
from billing.invoicing.snapshot import PeriodState
from workers.flush.execution import FlushExecution
from workers.flush.outcome import FlushOutcome, FlushResult

log = structlog.get_logger(__name__)


async def is_on_hold(execution: FlushExecution) -> bool:
    """Return True if a hold stands; read again before finalizing, because the snapshot may be minutes old."""
    snapshot = execution.snapshot
    if snapshot.hold is None and snapshot.batch is not None and snapshot.batch.finalizes:
        return await execution.context.ledger.holds.get(snapshot.customer) is not None
    return snapshot.hold is not None


async def on_hold_step(execution: FlushExecution) -> FlushResult:
    """Wait. Disable auto_advance if a person enabled it: Stripe would finalize within the hour."""
    snapshot = execution.snapshot
    if snapshot.invoice is not None and snapshot.state is not PeriodState.SEALED:
        with suppress(StripeRejected):  # deleted or final already: seen by the flush after the hold
            await _disable_auto_advance(execution, snapshot.invoice)
    return FlushResult(FlushOutcome.WAITING, execution.context.policy.hold_recheck_ms)


async def _disable_auto_advance(execution: FlushExecution, invoice: str) -> None:
    context, lane = execution.context, execution.lane
    path, changed = f"/v1/invoices/{invoice}", (execution.snapshot.customer, invoice)
    execution.stats.calls += 1
    body = await context.stripe.read(path, lane=lane)
    if body.get("status") != DRAFT or not body.get("auto_advance"):
        return
    await context.cache.begin_write(*changed)
    execution.write_intents |= set(changed)
    execution.stats.calls += 1
    key = f"{IDEMPOTENCY_PREFIX}timer:{invoice}:{execution.lease.fence}"
    kind, params = RequestKind.DISABLE_AUTO_ADVANCE, {"auto_advance": False}
    try:
        await context.stripe.send(StripeRequest(kind, "POST", path, params, key), lane=lane)
    except OutcomeUnknown:
        await context.ledger.leases.mark_in_doubt(execution.lease)
        raise
