"""`releaseBilling`: Support releases the hold on a customer's billing."""

from billing.stripe.records import CustomerRecord
from resolvers.audited import AuditedAction
from resolvers.context import Context
from resolvers.dataloaders.stripe import Loaded
from resolvers.mutations.hold_billing import describe
from resolvers.node_lookup import require_customer
from resolvers.validation import validate_reason


async def release_billing(
    context: Context, customer_id: str, reason: str, idempotency_key: str | None
) -> Loaded[CustomerRecord]:
    """Release the active hold; a hold that waits becomes the active one. Returns the customer."""
    loaded = await require_customer(context, customer_id)
    customer, ledger = loaded.value.id, context.bypass_loaders().ledger
    action = AuditedAction(
        context,
        customer,
        "releaseBilling",
        validate_reason(reason),
        idempotency_key=idempotency_key,
    )
    hold = await ledger.holds.get(customer)
    async with action.run({"hold": describe(hold)}) as audit:
        # On a retry, the active hold may be another one than the first call was to release.
        if not audit.already_done:
            if hold and describe(hold) == audit.before["hold"]:
                hold = await ledger.holds.release(customer, hold)
            audit.after = {"hold": describe(hold)}
    context.reset_loaders()
    return loaded
