"""`repairDrift`: Support restores the gateway's invoice lines after they were edited in Stripe."""

from billing.budget import Lane
from billing.ledger.syncs import Sync, SyncTrigger
from resolvers.audited import AuditedAction
from resolvers.context import Context
from resolvers.drift import drift_lines, unsealed_snapshots
from resolvers.mutations.sync_billing import request_sync, require_not_on_hold
from resolvers.node_lookup import require_customer
from resolvers.validation import validate_reason


async def repair_drift(context: Context, customer_id: str, reason: str) -> Sync:
    """Have a worker compare every month that is not sealed with Stripe, and request a sync."""
    customer = (await require_customer(context, customer_id)).value.id
    services = context.bypass_loaders()
    action = AuditedAction(context, customer, "repairDrift", validate_reason(reason))
    snapshots = await unsealed_snapshots(services, customer)
    lines = [line for snapshot in snapshots for line in await drift_lines(services, snapshot)]
    before = {line.key or line.line_id or "": str(line.kind) for line in lines}
    async with action.run(before) as audit:
        await require_not_on_hold(context, customer)
        for snapshot in snapshots:  # a worker reads the draft before it writes
            await services.ledger.periods.request_verify(customer, snapshot.period)
            await services.job_queue.enqueue_flush(customer, snapshot.period, Lane.SUPPORT)
        sync, _ = await request_sync(context, customer, SyncTrigger.SUPPORT)
        audit.after, audit.sync = {"sync": sync.id}, sync.id
    return sync
