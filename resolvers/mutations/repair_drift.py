"""`repairDrift`: Support restores the gateway's invoice lines after somebody edited them in Stripe."""

# ruff: noqa: A002 the contract calls the argument `input`

from collections.abc import Sequence

from billing.budget import Lane
from billing.invoicing.snapshot import Snapshot
from billing.services import Services
from resolvers.audited import AuditedAction
from resolvers.context import Info
from resolvers.mutations.payloads import RepairDriftPayload
from resolvers.mutations.sync_billing import request_sync, require_not_on_hold
from resolvers.node_lookup import require_customer
from resolvers.types.drift import drift_lines, unsealed_snapshots
from resolvers.types.sync import Sync, SyncTrigger
from resolvers.user_errors import with_user_errors
from resolvers.validation import validate_reason
from schema.inputs import RepairDriftInput


@with_user_errors
async def repair_drift(info: Info, input: RepairDriftInput) -> RepairDriftPayload:
    """Support only: restore the gateway's lines on the customer's drafts to the quantities of the ledger.

    A worker reads the drafts from Stripe first. Lines that were added by hand stay unchanged. Error: ON_HOLD.
    """
    context = info.context
    customer = (await require_customer(context, input.customer_id)).record.id
    action = AuditedAction(context, customer, "repairDrift", validate_reason(input.reason))
    months = await unsealed_snapshots(context.uncached_services(), customer)
    async with action.run(await _describe_drift(context.uncached_services(), months)) as audit:
        await require_not_on_hold(context, customer)
        for month in months:  # a worker reads the draft before it writes
            await context.uncached_services().ledger.request_verify(customer, month.period)
            await context.uncached_services().job_queue.enqueue_flush(
                customer, month.period, Lane.SUPPORT
            )
        sync, _ = await request_sync(context, customer, SyncTrigger.SUPPORT)
        audit.after, audit.sync = {"sync": sync.id}, sync.id
    return RepairDriftPayload(sync=Sync.from_record(sync))


async def _describe_drift(services: Services, months: Sequence[Snapshot]) -> dict[str, str | None]:
    """The kind of difference by line, for the audit log."""
    lines = [line for month in months for line in await drift_lines(services, month)]
    return {line.key or line.line_id or "": str(line.kind) for line in lines}
