"""`holdBilling`: Support puts a customer's billing on hold."""

from billing.budget import Lane
from billing.invoicing.snapshot import Hold
from resolvers.audited import AuditedAction
from resolvers.context import Context
from resolvers.drift import unsealed_snapshots
from resolvers.node_lookup import require_customer
from resolvers.validation import validate_reason


async def hold_billing(
    context: Context, customer_id: str, reason: str, idempotency_key: str | None
) -> Hold | None:
    """Place a hold and enqueue a flush of every month that it affects; Refused (ON_HOLD) if another is active.

    Returns None if an earlier call with this key placed the hold and it was released since.
    """
    customer = (await require_customer(context, customer_id)).value.id
    services, reason = context.bypass_loaders(), validate_reason(reason)
    action = AuditedAction(
        context, customer, "holdBilling", reason, idempotency_key=idempotency_key
    )
    active = await services.ledger.holds.get(customer)
    async with action.run({"hold": describe(active)}) as audit:
        if audit.already_done and active is None:
            return None
        hold = await services.ledger.holds.place(customer, reason, context.viewer.subject)
        audit.after = {"hold": describe(hold)}
    for snapshot in await unsealed_snapshots(services, customer):
        # Stripe may finalize a draft by its own timer, so a worker has to switch that off.
        await services.job_queue.enqueue_flush(customer, snapshot.period, Lane.SUPPORT)
    return hold


def describe(hold: Hold | None) -> str | None:
    """The reason and the author of *hold*, for the audit log."""
    return f"{hold.reason} ({hold.by})" if hold else None
