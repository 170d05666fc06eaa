"""Lookup of objects by id: the prefix of an id names its kind, and only what the viewer may see is found."""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from billing.errors import ErrorCode, Refused, StripeRejected
from billing.ledger.syncs import Sync
from billing.stripe import resources
from billing.stripe.records import CustomerRecord, InvoiceRecord, PaymentMethodRecord
from billing.stripe.resources import OWNED_OBJECTS
from billing.usage import CustomerId, Period
from resolvers.adjustments import find_adjustment
from resolvers.billing_periods import PricedSnapshot, current_period, find_period
from resolvers.context import Context, Role
from resolvers.dataloaders.stripe import Loaded
from resolvers.invoices import find_line

# Ids are used in Stripe paths and in Redis keys, so only characters of Stripe's and our ids are accepted.
ID_PATTERN = re.compile(r"([a-z]{2,8})_[A-Za-z0-9_]{1,200}", re.ASCII)
MAX_LISTS = 5  # of payment methods that are searched for one by its id


class FoundNode(NamedTuple):
    """An object found by its id: its *kind* (see `KINDS`), the customer that owns it, and its *record*."""

    kind: str
    owner: str | None
    record: Any


class NodeKind(NamedTuple):
    """A kind of object: *load* reads the record with an id, *owner_of* names the customer of a record."""

    load: Callable[[Context, str], Awaitable[Any]]
    owner_of: Callable[[Any], str | None]


async def _load_invoice(context: Context, invoice: str) -> Loaded[InvoiceRecord] | None:
    if context.viewer.role is Role.SUPPORT:
        return await context.loaders.invoice(invoice)
    return await context.loaders.visible_invoice(invoice, context.viewer.may_see)


async def _load_customer(context: Context, customer: str) -> Loaded[CustomerRecord] | None:
    """The customer; for Support also what Stripe has left of one that was deleted, while the ledger has usage."""
    found = await context.loaders.customer(customer)
    if found is not None or context.viewer.role is not Role.SUPPORT:
        return found
    remains = await context.loaders.deleted_customer(customer)
    usage, name = context.bypass_loaders().ledger.usage, CustomerId(customer)
    return remains if remains and await usage.registered_currencies([name]) else None


async def _load_payment_method(context: Context, id_: str) -> Loaded[PaymentMethodRecord] | None:
    """For a few customers from their lists, which are cached; otherwise from Stripe, each time."""
    if context.viewer.role is Role.SUPPORT or len(context.viewer.customers) > MAX_LISTS:
        return await context.loaders.payment_method(id_)
    for customer in sorted(context.viewer.customers):
        found = await context.loaders.own_payment_method(customer, id_)
        if found is not None:
            return found
    return None


KINDS: Mapping[str, NodeKind] = {
    "cus": NodeKind(_load_customer, lambda loaded: loaded.value.id),
    "in": NodeKind(_load_invoice, lambda loaded: loaded.value.customer),
    "il": NodeKind(find_line, lambda found: found.invoice.customer),
    "pm": NodeKind(_load_payment_method, lambda loaded: loaded.value.customer),
    "sync": NodeKind(lambda context, sync: context.loaders.sync(sync), lambda sync: sync.customer),
    "adj": NodeKind(find_adjustment, lambda found: found.adjustment.customer),
    "evt": NodeKind(
        lambda context, event: context.bypass_loaders().inbox.get(event),
        lambda event: event.customer,
    ),
}
"""The kinds of objects, by the prefix of their ids."""
SUPPORT_KINDS = frozenset({"adj", "evt"})


async def find_node(context: Context, any_id: str) -> FoundNode | None:
    """The object with this id; None when it does not exist or the viewer may not see it.

    A customer cannot tell the two apart: both take the same work.
    """
    if context.viewer.role is Role.SUPPORT or any_id in context.viewer.customers:
        return await _find(context, any_id)
    return await context.count_lookup(_find_visible(context, any_id))


async def _find_visible(context: Context, any_id: str) -> FoundNode | None:
    node = await _find(context, any_id)
    return node if node is not None and context.viewer.may_see(node.owner or "") else None


async def _find(context: Context, any_id: str) -> FoundNode | None:
    form = ID_PATTERN.fullmatch(any_id)
    name = form[1] if form else ""
    if name not in KINDS or (name in SUPPORT_KINDS and context.viewer.role is not Role.SUPPORT):
        return None
    if name == "cus" and not context.viewer.may_see(any_id):
        return None
    kind = KINDS[name]
    record = await kind.load(context, any_id)
    return None if record is None else FoundNode(name, kind.owner_of(record), record)


async def find_invoice(context: Context, any_id: str) -> Loaded[InvoiceRecord] | None:
    """The invoice with this id; None when the viewer may not see one."""
    node = await find_node(context, any_id)
    return node.record if node and node.kind == "in" else None


async def find_sync(context: Context, any_id: str) -> Sync | None:
    """The sync with this id; None when the viewer may not see one."""
    node = await find_node(context, any_id)
    return node.record if node and node.kind == "sync" else None


async def find_customer(context: Context, any_id: str) -> Loaded[CustomerRecord] | None:
    """The customer with this id, or the owner of the object with this id."""
    node = await find_node(context, any_id)
    if node and node.kind == "cus":
        found: Loaded[CustomerRecord] = node.record
        return found
    owner = node.owner if node else await _fetch_owner(context, any_id)
    return await _load_customer(context, owner) if owner else None


async def _fetch_owner(context: Context, any_id: str) -> str | None:
    """For Support: the customer of a charge, credit note or the like, read from Stripe."""
    form = ID_PATTERN.fullmatch(any_id)
    if form is None or form[1] not in OWNED_OBJECTS or context.viewer.role is not Role.SUPPORT:
        return None
    try:
        return (await context.loaders.get(resources.owner(form[1], any_id))).value
    except StripeRejected:
        return None


async def find_visible_period(
    context: Context, customer: str, month: Period | None
) -> PricedSnapshot | None:
    """One *month* (None: the current one) of *customer*, without a read of the customer at Stripe.

    None when the viewer may not see the customer, or the ledger has never counted usage of it.
    """
    form = ID_PATTERN.fullmatch(customer)
    if form is None or form[1] != "cus" or not context.viewer.may_see(customer):
        context.missed_lookups += 1
        return None
    snapshot = await context.loaders.snapshot(customer)
    if not snapshot.currency:
        return None
    if month is None:
        return await current_period(context, snapshot.customer, snapshot.currency)
    return await find_period(context, snapshot.customer, month, snapshot.currency)


async def require_customer(context: Context, any_id: str) -> Loaded[CustomerRecord]:
    """As `find_customer`, for a mutation's input; Refused (NOT_FOUND) when the viewer may not see one."""
    customer = await find_customer(context, any_id)
    if customer is None:
        raise not_found("customer", any_id, "customerId")
    return customer


def not_found(kind: str, any_id: str, field: str) -> Refused:
    """The error for an object that does not exist, or that the viewer may not see."""
    shown = any_id if ID_PATTERN.fullmatch(any_id) else "of this id"
    return Refused(
        ErrorCode.NOT_FOUND, f"There is no {kind} {shown} for you; check the id.", ("input", field)
    )
