"""`holdBilling` and `releaseBilling`: Support puts a customer's billing on hold and releases the hold."""

# ruff: noqa: A002 the contract calls the argument `input`

from billing.budget import Lane
from billing.invoicing.snapshot import Hold
from billing.usage import CustomerId
from resolvers.audited import AuditedAction
from resolvers.context import Info
from resolvers.mutations.payloads import HoldBillingPayload, ReleaseBillingPayload
from resolvers.node_lookup import require_customer
from resolvers.types.drift import unsealed_snapshots
from resolvers.types.hold import BillingHold
from resolvers.user_errors import with_user_errors
from resolvers.validation import validate_reason
from schema.inputs import HoldBillingInput, ReleaseBillingInput


@with_user_errors
async def hold_billing(info: Info, input: HoldBillingInput) -> HoldBillingPayload:
    """Support only: put a customer's billing on hold.

    Usage is still counted, but nothing is written to Stripe until `releaseBilling`. Error ON_HOLD if a hold
    with another reason is active; a repeated call with the same reason returns the active hold.
    """
    context = info.context
    customer = await require_customer(context, input.customer_id)
    owner, reason = customer.record.id, validate_reason(input.reason)
    action = AuditedAction(context, owner, "holdBilling", reason, key=input.idempotency_key)
    hold = await _place_hold(action, owner, reason)
    if hold is None:  # an earlier call with this key placed the hold, and it was released since
        return HoldBillingPayload()
    for month in await unsealed_snapshots(
        context.uncached_services(), owner
    ):  # Stripe may finalize a draft by its own timer
        await context.uncached_services().job_queue.enqueue_flush(owner, month.period, Lane.SUPPORT)
    return HoldBillingPayload(hold=BillingHold.from_record(hold))


async def _place_hold(action: AuditedAction, owner: CustomerId, reason: str) -> Hold | None:
    ledger, by = action.context.uncached_services().ledger, action.context.viewer.subject
    before = await ledger.get_hold(owner)
    async with action.run({"hold": _describe(before)}) as audit:
        if audit.already_done and before is None:
            return None
        hold = await ledger.place_hold(
            owner, reason, by
        )  # Refused (ON_HOLD) if another reason holds it
        audit.after = {"hold": _describe(hold)}
    return hold


@with_user_errors
async def release_billing(info: Info, input: ReleaseBillingInput) -> ReleaseBillingPayload:
    """Support only: release the active hold; billing resumes where it stopped.

    If another hold is waiting, it becomes the active one. Without an active hold the call changes nothing.
    """
    context = info.context
    customer = await require_customer(context, input.customer_id)
    owner, reason, ledger = (
        customer.record.id,
        validate_reason(input.reason),
        context.uncached_services().ledger,
    )
    action = AuditedAction(context, owner, "releaseBilling", reason, key=input.idempotency_key)
    hold = await ledger.get_hold(owner)
    async with action.run({"hold": _describe(hold)}) as audit:
        # On a retry, the active hold may be another one than the first call was to release.
        if not audit.already_done:
            if hold and _describe(hold) == audit.before["hold"]:
                hold = await ledger.release_hold(owner, hold)
            audit.after = {"hold": _describe(hold)}
    context.reset_loaders()
    return ReleaseBillingPayload(customer=customer)


def _describe(hold: Hold | None) -> str | None:
    return f"{hold.reason} ({hold.by})" if hold else None
