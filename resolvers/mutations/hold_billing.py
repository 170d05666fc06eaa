"""Support stops a customer's billing, and lets it go on."""

# ruff: noqa: A002 the contract calls the argument `input`

from billing.budget import Lane
from billing.invoicing.snapshot import Hold
from billing.usage import CustomerId
from resolvers.audited import Act
from resolvers.context import Info
from resolvers.mutations.payloads import HoldBillingPayload, ReleaseBillingPayload
from resolvers.node_lookup import must_find_customer
from resolvers.types.drift import unsealed
from resolvers.types.hold import BillingHold
from resolvers.user_errors import refusing
from resolvers.validation import reasoned
from schema.inputs import HoldBillingInput, ReleaseBillingInput


@refusing
async def hold_billing(info: Info, input: HoldBillingInput) -> HoldBillingPayload:
    """Support only: stop this customer's billing. Usage is still counted; Stripe is told nothing."""
    context = info.context
    customer = await must_find_customer(context, input.customer_id)
    owner, reason = customer.record.id, reasoned(input.reason)
    act = Act(context, owner, "holdBilling", reason, key=input.idempotency_key)
    hold = await _held(act, owner, reason)
    if hold is None:  # this very hold was made before, and released since
        return HoldBillingPayload()
    for month in await unsealed(context.services, owner):  # Stripe's own timer may run on a draft
        await context.services.wakeups.flush(owner, month.period, Lane.SUPPORT)
    return HoldBillingPayload(hold=BillingHold.of(hold))


async def _held(act: Act, owner: CustomerId, reason: str) -> Hold | None:
    ledger, by = act.context.services.ledger, act.context.viewer.subject
    before = await ledger.held(owner)
    async with act.noted({"hold": _words(before)}) as noted:
        if noted.done and before is None:
            return None
        hold = await ledger.hold(owner, reason, by)  # refused while it is held for another reason
        noted.after = {"hold": _words(hold)}
    return hold


@refusing
async def release_billing(info: Info, input: ReleaseBillingInput) -> ReleaseBillingPayload:
    """Support only: let billing go on where it was stopped, unless another hold waits; that stands then."""
    context = info.context
    customer = await must_find_customer(context, input.customer_id)
    owner, reason, ledger = customer.record.id, reasoned(input.reason), context.services.ledger
    act = Act(context, owner, "releaseBilling", reason, key=input.idempotency_key)
    stands = await ledger.held(owner)
    async with act.noted({"hold": _words(stands)}) as noted:
        # Done, or begun by a process that died, it may be another hold that stands now.
        if not noted.done:
            if stands and _words(stands) == noted.before["hold"]:
                stands = await ledger.release_hold(owner, stands)
            noted.after = {"hold": _words(stands)}
    context.renew()
    return ReleaseBillingPayload(customer=customer)


def _words(hold: Hold | None) -> str | None:
    return f"{hold.reason} ({hold.by})" if hold else None
