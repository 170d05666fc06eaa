"""Support sets right what somebody changed on our lines at Stripe."""

# ruff: noqa: A002 the contract calls the argument `input`

from collections.abc import Sequence

from billing.budget import Lane
from billing.invoicing.snapshot import Snapshot
from billing.services import Services
from resolvers.audited import Act
from resolvers.context import Info
from resolvers.mutations.payloads import RepairDriftPayload
from resolvers.mutations.sync_billing import must_not_be_held, request_sync
from resolvers.node_lookup import must_find_customer
from resolvers.types.drift import drifted, unsealed
from resolvers.types.sync import Sync, SyncTrigger
from resolvers.user_errors import refusing
from resolvers.validation import reasoned
from schema.inputs import RepairDriftInput


@refusing
async def repair_drift(info: Info, input: RepairDriftInput) -> RepairDriftPayload:
    """Support only: read what Stripe has, and set our lines right; lines that others made stay."""
    context = info.context
    customer = (await must_find_customer(context, input.customer_id)).record.id
    act = Act(context, customer, "repairDrift", reasoned(input.reason))
    months = await unsealed(context.services, customer)
    async with act.noted(await _drift(context.services, months)) as noted:
        await must_not_be_held(context, customer)
        for month in months:  # a worker reads the draft before it writes
            await context.services.ledger.request_verify(customer, month.period)
            await context.services.wakeups.flush(customer, month.period, Lane.SUPPORT)
        sync, _ = await request_sync(context, customer, SyncTrigger.SUPPORT)
        noted.after, noted.sync = {"sync": sync.id}, sync.id
    return RepairDriftPayload(sync=Sync.of(sync))


async def _drift(services: Services, months: Sequence[Snapshot]) -> dict[str, str | None]:
    """How each line differs, by its name."""
    found = [line for month in months for line in await drifted(services, month)]
    return {each.key or each.line_id or "": str(each.kind) for each in found}
