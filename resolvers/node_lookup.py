"""Finding a thing by its id alone: the prefix tells its kind, and only what the viewer may see is found."""

import re
from collections.abc import Awaitable, Callable, Mapping

from billing.budget import Lane
from billing.errors import ErrorCode, Refused, StripeRejected
from billing.events.effects import customer_of
from resolvers.context import Context, Role
from resolvers.types.adjustment import Adjustment
from resolvers.types.customer import Customer
from resolvers.types.invoice import Invoice
from resolvers.types.invoice_line import InvoiceLine
from resolvers.types.payment_method import PaymentMethod
from resolvers.types.sync import Sync
from resolvers.types.webhook_event import WebhookEvent
from schema.types.node import Node

# Ids end up in Stripe's paths and in Redis keys: nothing but what Stripe and we ourselves make of them.
ID_FORM = re.compile(r"([a-z]{2,8})_[A-Za-z0-9_]{1,200}", re.ASCII)

Find = Callable[[Context, str], Awaitable[Node | None]]

FOR_PANEL: Mapping[str, Find] = {
    "cus": Customer.find,
    "in": Invoice.find_own,
    "il": InvoiceLine.find,
    "pm": PaymentMethod.find,
    "sync": Sync.find,
}
FOR_SUPPORT: Mapping[str, Find] = {
    **FOR_PANEL,
    "in": Invoice.find,
    "adj": Adjustment.find,
    "evt": WebhookEvent.find,
}

# Things of Stripe's that have no type here, but name their customer: where each kind is read.
BELONGINGS: Mapping[str, str] = {
    "ch": "charges",
    "cn": "credit_notes",
    "ii": "invoiceitems",
    "pi": "payment_intents",
    "py": "charges",
    "seti": "setup_intents",
    "sub": "subscriptions",
}


async def find(context: Context, any_id: str) -> Node | None:
    """Whatever has this id, None when there is nothing or nothing that the viewer may see.

    A customer can tell the two apart by nothing: finding nothing takes the same work either way.
    """
    if context.viewer.role is Role.SUPPORT:
        return await _find(context, any_id, FOR_SUPPORT)
    node = await _find(context, any_id, FOR_PANEL)
    if node is not None and context.viewer.may_see(node.owner or ""):
        return node
    context.in_vain += 1
    return None


async def _find(context: Context, any_id: str, finders: Mapping[str, Find]) -> Node | None:
    form = ID_FORM.fullmatch(any_id)
    if form is None or form[1] not in finders:
        return None
    if form[1] == "cus" and not context.viewer.may_see(any_id):
        return None
    return await finders[form[1]](context, any_id)


async def find_customer(context: Context, any_id: str) -> Customer | None:
    """The customer with this id, or to whom the thing with this id belongs."""
    node = await find(context, any_id)
    if isinstance(node, Customer):
        return node
    owner = node.owner if node else await _named_by_stripe(context, any_id)
    return await Customer.find(context, owner) if owner else None


async def _named_by_stripe(context: Context, any_id: str) -> str | None:
    """For Support: whose charge, credit note or the like this is."""
    form = ID_FORM.fullmatch(any_id)
    if form is None or form[1] not in BELONGINGS or context.viewer.role is not Role.SUPPORT:
        return None
    path = f"/v1/{BELONGINGS[form[1]]}/{any_id}"
    try:
        return customer_of(await context.services.stripe.read(path, lane=Lane.SUPPORT))
    except StripeRejected:
        return None


async def must_find_customer(context: Context, any_id: str) -> Customer:
    """As `find_customer`, for a mutation's input; Refused (NOT_FOUND) when there is none to be seen."""
    customer = await find_customer(context, any_id)
    if customer is None:
        raise not_found("customer", any_id, "customerId")
    return customer


def not_found(kind: str, any_id: str, field: str) -> Refused:
    """The same words for what does not exist and for what is somebody else's."""
    shown = any_id if ID_FORM.fullmatch(any_id) else "of this id"
    return Refused(
        ErrorCode.NOT_FOUND, f"There is no {kind} {shown} for you; check the id.", ("input", field)
    )
