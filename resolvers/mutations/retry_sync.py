"""`retrySync`: Support retries a failed sync at once."""

from billing.budget import Lane
from billing.errors import ErrorCode, Refused
from billing.ledger.syncs import Sync, SyncStatus, SyncTrigger
from resolvers.audited import AuditedAction
from resolvers.context import Context
from resolvers.mutations.sync_billing import request_sync, require_not_on_hold
from resolvers.node_lookup import find_sync, not_found
from resolvers.validation import validate_optional_reason


async def retry_sync(context: Context, sync_id: str, reason: str | None) -> Sync:
    """Make the sync's period due now.

    Refused: SYNC_IN_PROGRESS while it is running, PERIOD_CLOSED if the period's bill is final.
    """
    previous = await find_sync(context, sync_id)
    if previous is None:
        raise not_found("sync", sync_id, "syncId")
    reason = validate_optional_reason(reason)
    action = AuditedAction(context, previous.customer, "retrySync", reason)
    async with action.run(_audit_values(previous)) as audit:
        if previous.status is SyncStatus.RUNNING:
            raise Refused(
                ErrorCode.SYNC_IN_PROGRESS, "This sync is running; wait until it has finished."
            )
        await require_not_on_hold(context, previous.customer)
        sync = await _resume(context, previous)
        audit.after, audit.sync = _audit_values(sync), sync.id
    return sync


async def _resume(context: Context, previous: Sync) -> Sync:
    """Make the period due now; return a new sync for the current month, *previous* for one being closed."""
    services = context.bypass_loaders()
    can_flush = await services.ledger.due.wake(previous.customer, previous.period)
    if previous.period == await services.ledger.periods.current(previous.customer):
        return (await request_sync(context, previous.customer, SyncTrigger.SUPPORT)).sync
    if not can_flush:
        raise Refused(
            ErrorCode.PERIOD_CLOSED,
            f"The bill of {previous.period} is final, so there is nothing left to sync; correct it by a "
            "credit note in Stripe, or correct the current month.",
            ("syncId",),
        )
    await services.job_queue.enqueue_flush(previous.customer, previous.period, Lane.SUPPORT)
    return previous


def _audit_values(sync: Sync) -> dict[str, str | None]:
    failure = sync.failure.code if sync.failure else None
    return {"sync": sync.id, "status": sync.status, "failure": failure}
