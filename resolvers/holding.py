"""Support stops a customer's billing, and lets it go on."""

# ruff: noqa: A002 the contract calls the argument `input`

from billing.snapshot import Hold
from resolvers.audit import Act
from resolvers.context import Info
from resolvers.finding import must_find_customer
from resolvers.hold import BillingHold
from resolvers.payloads import HoldBillingPayload, ReleaseBillingPayload
from resolvers.reasons import reasoned
from resolvers.refusing import refusing
from schema.types.inputs import HoldBillingInput, ReleaseBillingInput


@refusing
async def hold_billing(info: Info, input: HoldBillingInput) -> HoldBillingPayload:
    """Support only: stop this customer's billing. Usage is still counted; Stripe is told nothing."""
    context = info.context
    customer = await must_find_customer(context, input.customer_id)
    reason, ledger = reasoned(input.reason), context.services.ledger
    before = await ledger.held(customer.record.id)
    hold = await ledger.hold(customer.record.id, reason, context.viewer.subject)
    if before is None:
        await Act(context, customer.record.id, "holdBilling", reason).done(
            before={"hold": None}, after={"hold": _noted(hold)}
        )
    return HoldBillingPayload(hold=BillingHold.of(hold))


@refusing
async def release_billing(info: Info, input: ReleaseBillingInput) -> ReleaseBillingPayload:
    """Support only: let billing go on where it was stopped; without a hold nothing changes."""
    context = info.context
    customer = await must_find_customer(context, input.customer_id)
    reason, ledger = reasoned(input.reason), context.services.ledger
    before = await ledger.held(customer.record.id)
    await ledger.release_hold(customer.record.id, reason, context.viewer.subject)
    if before is not None:
        await Act(context, customer.record.id, "releaseBilling", reason).done(
            before={"hold": _noted(before)}, after={"hold": None}
        )
    context.renew()
    return ReleaseBillingPayload(customer=customer)


def _noted(hold: Hold) -> dict[str, str]:
    return {"reason": hold.reason, "by": hold.by}
