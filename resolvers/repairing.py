"""Support sets right what somebody changed on our lines at Stripe."""

# ruff: noqa: A002 the contract calls the argument `input`

from billing.budget import Lane
from billing.services import Services
from billing.snapshot import Snapshot
from resolvers.audit import Act
from resolvers.context import Info
from resolvers.drift import drifted, unsealed
from resolvers.finding import must_find_customer
from resolvers.payloads import RepairDriftPayload
from resolvers.reasons import reasoned
from resolvers.refusing import refusing
from resolvers.sync import Sync, SyncTrigger
from resolvers.syncing import must_not_be_held, request_sync
from schema.types.inputs import RepairDriftInput


@refusing
async def repair_drift(info: Info, input: RepairDriftInput) -> RepairDriftPayload:
    """Support only: read what Stripe has, and set our lines right; lines that others made stay."""
    context = info.context
    customer = (await must_find_customer(context, input.customer_id)).record.id
    act = Act(context, customer, "repairDrift", reasoned(input.reason))
    await must_not_be_held(context, customer)
    drift: list[dict[str, str | None]] = []
    for snapshot in await unsealed(context.services, customer):
        drift += await _repaired(context.services, snapshot)
    sync, _ = await request_sync(context, customer, SyncTrigger.SUPPORT)
    await act.done(before={"drift": drift}, after={"sync": sync.id}, sync=sync.id)
    return RepairDriftPayload(sync=Sync.of(sync))


async def _repaired(services: Services, snapshot: Snapshot) -> list[dict[str, str | None]]:
    """Have a worker read the month's draft before it writes; what it will find, for the log."""
    found = await drifted(services, snapshot)
    await services.ledger.request_verify(snapshot.customer, snapshot.period)
    await services.wakeups.flush(snapshot.customer, snapshot.period, Lane.SUPPORT)
    return [{"line": each.key or each.line_id, "kind": each.kind} for each in found]
