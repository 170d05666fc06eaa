"""Brings Stripe's invoice up to date with the ledger, for one customer and period.

Acquire a lease and a snapshot, decide, store the exact requests, send them, commit Stripe's response,
release the lease. A worker may die between any two of these, and any worker continues from there.
"""

from dataclasses import replace

import structlog

from billing.budget import Lane
from billing.cache import entries
from billing.change_feed import Change, ChangeReason
from billing.errors import LeaseLost, StripeRejected, Unavailable, UnknownPeriod
from billing.invoicing import diff
from billing.invoicing.rewind import is_rewind_hold
from billing.invoicing.snapshot import PeriodState, Snapshot
from billing.ledger.syncs import SyncOutcome, SyncStatus
from billing.stripe.price_catalog import PriceMissing
from billing.usage import CustomerId, Period
from workers.flush.backoff import unavailable_result
from workers.flush.closing import closing_step
from workers.flush.deleted_customer import is_customer_deleted, unbillable_result
from workers.flush.execution import FlushExecution
from workers.flush.on_hold import is_on_hold, on_hold_step
from workers.flush.outcome import (
    RETRY_NOW,
    FlushOutcome,
    FlushResult,
    no_room_result,
    parked_result,
    rejected_result,
)
from workers.flush.policy import FlushContext
from workers.flush.rewind import recovery_step, review_step
from workers.flush.steps import delete_draft, plan_lines, surplus_draft, write_step

log = structlog.get_logger(__name__)

MAX_STEPS = 24
MAX_REJECTIONS = 2
MAX_CRASHES = 5

SYNC_STATUS = {
    FlushOutcome.SYNCED: SyncStatus.SUCCEEDED,
    FlushOutcome.SEALED: SyncStatus.SUCCEEDED,
    FlushOutcome.WAITING: SyncStatus.QUEUED,
    FlushOutcome.RETRYING: SyncStatus.RETRYING,
    FlushOutcome.PARKED: SyncStatus.FAILED,
}
FINAL_STATUSES = {SyncStatus.SUCCEEDED, SyncStatus.FAILED}


async def flush(
    customer: CustomerId,
    period: Period,
    context: FlushContext,
    *,
    lane: Lane = Lane.INTERVAL,
) -> FlushResult:
    """Send Stripe what changed, or continue where another worker died; BUSY while another worker runs.

    A rejection by Stripe parks the period with a typed failure; if Stripe is unavailable, the period is
    due again later. Neither raises. Raises LedgerUnavailable: the outcome is unknown then, and the lease
    expires.
    """
    started_at = context.clock()
    try:
        leased = await context.ledger.leases.acquire(
            customer, period, lease_ms=context.policy.lease_ms
        )
    except UnknownPeriod:
        log.warning("flush.period_unknown", customer=customer, period=str(period))
        return FlushResult(FlushOutcome.SEALED)
    if leased is None:
        return FlushResult(FlushOutcome.BUSY)
    lane = _effective_lane(lane, leased.snapshot)
    execution = FlushExecution.begin(context, leased, lane, started_at)
    try:
        result = await _run_to_result(execution)
        await _finish(execution, result)
    except LeaseLost:
        log.info("flush.lease_lost", customer=customer, period=str(period))
        return FlushResult(FlushOutcome.LOST)
    _log_result(execution, result)
    return result


def _effective_lane(lane: Lane, snapshot: Snapshot) -> Lane:
    """Promote a routine flush whose sync was requested or whose period closes; demote a mere verify."""
    if lane is not Lane.INTERVAL:
        return lane
    if snapshot.sync_requested:
        return Lane.CUSTOMER
    if snapshot.state is PeriodState.CLOSING:
        return Lane.CLOSE
    return Lane.BACKGROUND if snapshot.is_synced else lane


async def _run_to_result(execution: FlushExecution) -> FlushResult:
    if execution.snapshot.crashes > MAX_CRASHES:
        return parked_result("crash_loop", f"{MAX_CRASHES} workers in a row died on this period.")
    try:
        return await _run_steps(execution)
    except PriceMissing as error:
        return parked_result(error.code, error.message)
    except StripeRejected as error:
        return rejected_result(error)
    except Unavailable as error:
        return unavailable_result(execution, error)


async def _run_steps(execution: FlushExecution) -> FlushResult:
    try:
        return await _repeat_steps(execution)
    except StripeRejected as error:
        if not await is_customer_deleted(execution, error):
            raise
        return await unbillable_result(execution, error.request_id)


async def _repeat_steps(execution: FlushExecution) -> FlushResult:
    if delay_ms := await _schedule_delay(execution):
        return FlushResult(FlushOutcome.WAITING, delay_ms)
    for _ in range(MAX_STEPS):
        if result := await _step(execution):
            return result
        if len(execution.rejections) >= MAX_REJECTIONS:
            raise execution.rejections[-1]
    return FlushResult(FlushOutcome.WAITING, execution.context.policy.retry_base_ms)


async def _schedule_delay(execution: FlushExecution) -> int:
    """Return how long (ms) usage may still wait; 0 if there is other work or a sync was requested."""
    snapshot = execution.snapshot
    begun = snapshot.batch is not None or snapshot.state is not PeriodState.OPEN
    other_work = begun or snapshot.rewound or snapshot.verify_pending
    if execution.lane is not Lane.INTERVAL or other_work or snapshot.up_to_date:
        return 0
    return execution.context.policy.schedule.delay_ms(snapshot, await execution.prices())


async def _step(execution: FlushExecution) -> FlushResult | None:
    snapshot = execution.snapshot
    if await is_on_hold(execution):
        step = recovery_step if is_rewind_hold(snapshot) else on_hold_step
        return await step(execution)
    if snapshot.batch is not None:
        await execution.execute()
        return None
    if snapshot.state is PeriodState.SEALED:
        return FlushResult(FlushOutcome.SEALED)
    if result := await review_step(execution):
        return result
    step = closing_step if snapshot.state is PeriodState.CLOSING else _open_step
    return await step(execution)


async def _open_step(execution: FlushExecution) -> FlushResult | None:
    snapshot = execution.snapshot
    if snapshot.up_to_date:
        return FlushResult(FlushOutcome.SYNCED)
    if _must_fetch(execution):
        await execution.fetch_invoices(listing=snapshot.verify_pending)
        return None
    if execution.is_final:
        # A person finalized it early: the period ends here, later usage goes to the next one.
        await execution.context.ledger.periods.close(snapshot.customer, snapshot.period)
        return RETRY_NOW
    if execution.grace_ms:
        return FlushResult(FlushOutcome.WAITING, execution.grace_ms)
    return await _draft_step(execution)


async def _draft_step(execution: FlushExecution) -> FlushResult | None:
    if draft := surplus_draft(execution):
        return await delete_draft(execution, draft)
    plan = await plan_lines(execution)
    if plan is None:
        return no_room_result(execution.snapshot.invoice)
    return await write_step(execution, plan)


def _must_fetch(execution: FlushExecution) -> bool:
    """Return True if Stripe must be read first: before a line is added and before a draft is made."""
    snapshot = execution.snapshot
    if snapshot.verify_pending and execution.other_invoices is None:
        return True
    if snapshot.invoice is None:
        return execution.other_invoices is None and any(snapshot.totals.values())
    return execution.invoice is None and (snapshot.rewound or diff.requires_fetch(snapshot))


async def _finish(execution: FlushExecution, result: FlushResult) -> None:
    """End the write intents, release the lease and publish the change."""
    context, snapshot, lease = execution.context, execution.snapshot, execution.lease
    customer = snapshot.customer
    if execution.write_intents:
        await context.cache.end_write(*sorted(execution.write_intents), entries.usage(customer))
    sync = _sync_outcome(execution, result)
    if result.outcome is FlushOutcome.PARKED and result.failure is not None:
        sync_ids = await context.ledger.leases.park(lease, result.failure, sync)
    else:
        sync_ids = await context.ledger.leases.release(lease, delay_ms=result.delay_ms, sync=sync)
    completed = sync_ids and sync.status in FINAL_STATUSES
    if execution.write_intents or result.failure or completed:
        change = Change(customer, ChangeReason.SYNC, invoice=snapshot.invoice)
        changes = [replace(change, sync=sync_id) for sync_id in sync_ids] or [change]
        await context.change_feed.publish(*changes)


def _sync_outcome(execution: FlushExecution, result: FlushResult) -> SyncOutcome:
    return SyncOutcome(
        status=SYNC_STATUS[result.outcome],
        lines_added=execution.stats.lines_added,
        lines_updated=execution.stats.lines_updated,
        lines_removed=execution.stats.lines_removed,
        stripe_calls=execution.stats.calls,
        invoice=execution.snapshot.invoice,
        failure=result.failure,
    )


def _log_result(execution: FlushExecution, result: FlushResult) -> None:
    log.info(
        "flush.ended",
        customer=execution.snapshot.customer,
        period=str(execution.snapshot.period),
        outcome=result.outcome,
        calls=execution.stats.calls,
        code=result.failure and result.failure.code,
    )
