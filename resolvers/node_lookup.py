"""Lookup of a node by its id alone: the id's prefix determines the type; access is checked."""

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

# Ids become part of Stripe's paths and of Redis keys, so only the characters of real ids are accepted.
ID_PATTERN = re.compile(r"([a-z]{2,8})_[A-Za-z0-9_]{1,200}", re.ASCII)

Finder = Callable[[Context, str], Awaitable[Node | None]]

CUSTOMER_FINDERS: Mapping[str, Finder] = {
    "cus": Customer.find,
    "in": Invoice.find_visible,
    "il": InvoiceLine.find,
    "pm": PaymentMethod.find,
    "sync": Sync.find,
}
SUPPORT_FINDERS: Mapping[str, Finder] = {
    **CUSTOMER_FINDERS,
    "in": Invoice.find,
    "adj": Adjustment.find,
    "evt": WebhookEvent.find,
}

# Stripe objects without a type in the schema that have a customer: prefix to path segment.
CUSTOMER_OWNED: Mapping[str, str] = {
    "ch": "charges",
    "cn": "credit_notes",
    "ii": "invoiceitems",
    "pi": "payment_intents",
    "py": "charges",
    "seti": "setup_intents",
    "sub": "subscriptions",
}


async def find_node(context: Context, any_id: str) -> Node | None:
    """The node with this id; None if it does not exist or the viewer may not see it.

    A customer cannot tell the two apart: both take the same work.
    """
    if context.viewer.role is Role.SUPPORT:
        return await _find_with(context, any_id, SUPPORT_FINDERS)
    node = await _find_with(context, any_id, CUSTOMER_FINDERS)
    if node is not None and context.viewer.may_see(node.owner or ""):
        return node
    context.missed_lookups += 1
    return None


async def _find_with(context: Context, any_id: str, finders: Mapping[str, Finder]) -> Node | None:
    form = ID_PATTERN.fullmatch(any_id)
    if form is None or form[1] not in finders:
        return None
    if form[1] == "cus" and not context.viewer.may_see(any_id):
        return None
    return await finders[form[1]](context, any_id)


async def find_customer(context: Context, any_id: str) -> Customer | None:
    """The customer with this id, or the owner of the object with this id."""
    node = await find_node(context, any_id)
    if isinstance(node, Customer):
        return node
    owner = node.owner if node else await _owner_at_stripe(context, any_id)
    return await Customer.find(context, owner) if owner else None


async def _owner_at_stripe(context: Context, any_id: str) -> str | None:
    """For Support: the customer of a charge, credit note or similar object."""
    form = ID_PATTERN.fullmatch(any_id)
    if form is None or form[1] not in CUSTOMER_OWNED or context.viewer.role is not Role.SUPPORT:
        return None
    path = f"/v1/{CUSTOMER_OWNED[form[1]]}/{any_id}"
    try:
        return customer_of(await context.uncached_services().stripe.read(path, lane=Lane.SUPPORT))
    except StripeRejected:
        return None


async def require_customer(context: Context, any_id: str) -> Customer:
    """As `find_customer`, for a mutation's input; Refused (NOT_FOUND) instead of None."""
    customer = await find_customer(context, any_id)
    if customer is None:
        raise not_found("customer", any_id, "customerId")
    return customer


def not_found(kind: str, any_id: str, field: str) -> Refused:
    """The error for an object that does not exist or that the viewer may not see; the same for both."""
    shown = any_id if ID_PATTERN.fullmatch(any_id) else "of this id"
    return Refused(
        ErrorCode.NOT_FOUND, f"There is no {kind} {shown} for you; check the id.", ("input", field)
    )
