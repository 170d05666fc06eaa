"""The root type Query."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any

import strawberry

from billing.events.records import EventStatus
from billing.ledger.syncs import SyncStatus
from billing.pagination import MAX_PAGE_SIZE, PageRequest
from billing.usage_validation import MONTH_FORMAT, parse_month
from resolvers.customer_search import search_by_email, search_customers
from resolvers.customers import list_customers
from resolvers.dataloaders.stripe import EMPTY_PAGE
from resolvers.loop_slots import loop_slots
from resolvers.node_lookup import (
    FoundNode,
    find_customer,
    find_invoice,
    find_node,
    find_sync,
    find_visible_period,
)
from schema.arguments import AnyId, CustomerIdArgument, Email, Ids, Month
from schema.connections import (
    After,
    Before,
    Connection,
    First,
    Last,
    bad_input,
    connect,
    forward_only,
    page_request,
)
from schema.decorators import graphql_type
from schema.info import Info, note_selection
from schema.types.adjustment import Adjustment
from schema.types.audit import AuditEntry
from schema.types.billing_period import BillingPeriod
from schema.types.customer import CUSTOMERS_PAGE_SIZE, INVOICES_PAGE_SIZE, Customer
from schema.types.hold import Hold
from schema.types.invoice import Invoice
from schema.types.invoice_line import InvoiceLine
from schema.types.node import Node
from schema.types.payment_method import PaymentMethod
from schema.types.stripe_budget import StripeBudget
from schema.types.sync import Sync
from schema.types.viewer import Viewer
from schema.types.webhook_event import WebhookEvent

PAGE_SIZE = 20
NODE_CONVERTERS: Mapping[str, Callable[[Any], Node]] = {
    "cus": Customer.from_record,
    "in": Invoice.from_record,
    "il": lambda found: InvoiceLine.from_record(*found),
    "pm": PaymentMethod.from_record,
    "sync": Sync.from_record,
    "adj": Adjustment.from_record,
    "evt": WebhookEvent.from_record,
}
"""Conversion of a found object, by its kind."""


@graphql_type
class Query:
    """All queries. An object that the viewer may not see is answered as if it did not exist."""

    @strawberry.field
    async def node(self, info: Info, any_id: AnyId) -> Node | None:
        """The object with this id; null if it does not exist or is not visible to the viewer."""
        note_selection(info)
        return _to_node(await find_node(info.context, any_id))

    @strawberry.field
    async def nodes(self, info: Info, ids: Ids) -> list[Node | None]:
        """The objects with these ids, in the order of `ids`, each as `node` returns it."""
        if len(ids) > MAX_PAGE_SIZE:
            raise bad_input(f"`ids` has {len(ids)} entries; ask for at most {MAX_PAGE_SIZE}.")
        note_selection(info)
        nodes = await asyncio.gather(*(find_node(info.context, any_id) for any_id in ids))
        await loop_slots.take(len(nodes))
        return [_to_node(found) for found in nodes]

    @strawberry.field
    def viewer(self, info: Info) -> Viewer:
        """The bearer of the token that authenticates this request."""
        return Viewer(role=info.context.viewer.role)

    @strawberry.field
    async def customer(self, info: Info, any_id: AnyId) -> Customer | None:
        """The customer with this id, or the owner of the object with this id (an invoice, a sync, ...).

        Null if there is none or if it is not visible to the viewer; the two cases cannot be told apart.
        """
        note_selection(info)
        loaded = await find_customer(info.context, any_id)
        return Customer.from_record(loaded) if loaded else None

    @strawberry.field
    async def invoice(self, info: Info, any_id: AnyId) -> Invoice | None:
        """The invoice with this id; null if it does not exist or is not visible to the viewer."""
        loaded = await find_invoice(info.context, any_id)
        return Invoice.from_record(loaded) if loaded else None

    @strawberry.field
    async def sync(self, info: Info, any_id: AnyId) -> Sync | None:
        """The sync with this id; null if it does not exist or is not visible to the viewer."""
        record = await find_sync(info.context, any_id)
        return Sync.from_record(record) if record else None

    @strawberry.field
    async def period(
        self,
        info: Info,
        customer_id: CustomerIdArgument,
        month: Month = None,
    ) -> BillingPeriod | None:
        """A customer's month, from the ledger alone: it is answered while Stripe is not.

        Null if the ledger has nothing for it, or if it is not visible to the viewer. `invoice` still reads Stripe.
        """
        wanted = parse_month(month) if month else None
        if month and wanted is None:
            raise bad_input(MONTH_FORMAT)
        period = await find_visible_period(info.context, customer_id, wanted)
        return BillingPeriod.from_record(period) if period else None

    @strawberry.field
    async def customers(  # noqa: PLR0913 the contract's arguments
        self,
        info: Info,
        *,
        first: First = CUSTOMERS_PAGE_SIZE,
        after: After = None,
        last: Last = None,
        before: Before = None,
        email: Email = None,
        search: Annotated[
            str | None,
            strawberry.argument(
                description="An e-mail address or part of one, an organization, part of a name, an invoice's number, or "
                "any id; at most 255 characters, capitals or not; exclusive of `email`. A search by words has one "
                "page. Empty: all customers.",
            ),
        ] = None,
    ) -> Connection[Customer]:
        """Support only: customers, newest first; all of them, or those that match `email` or `search`."""
        note_selection(info)
        request = page_request(first, after, last, before, default=CUSTOMERS_PAGE_SIZE)
        if search and email:
            raise bad_input("Give `email` or `search`, not both.")
        text = (search or "").strip()
        if text and (request.after is not None or request.before is not None):
            raise bad_input("A search has one page; narrow it down instead.")
        load = partial(list_customers, info.context)
        if text:
            load = partial(search_customers, info.context, text)
        elif email:
            load = partial(search_by_email, info.context, email)
        return await connect(info, request, load, Customer.from_record)

    @strawberry.field
    async def unpaid_invoices(
        self,
        info: Info,
        first: First = INVOICES_PAGE_SIZE,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[Invoice]:
        """Support only: open invoices of all customers, newest first: payments that wait, failed or are overdue."""
        request = page_request(first, after, last, before, default=INVOICES_PAGE_SIZE)
        return await connect(
            info, request, info.context.loaders.unpaid_invoices, Invoice.from_record
        )

    @strawberry.field
    async def syncs(
        self,
        info: Info,
        first: First = PAGE_SIZE,
        after: After = None,
        status: Annotated[
            SyncStatus | None, strawberry.argument(description="Only syncs with this status.")
        ] = None,
        customer_id: Annotated[
            strawberry.ID | None,
            strawberry.argument(
                description="Only syncs of this customer, or of this object's owner."
            ),
        ] = None,
    ) -> Connection[Sync]:
        """Support only: syncs, newest first; of all customers, or of one."""
        request = page_request(first, after, default=PAGE_SIZE)
        owner = await find_customer(info.context, customer_id) if customer_id else None
        if customer_id and owner is None:
            return Connection.from_page(EMPTY_PAGE, PageRequest(0), Sync.from_record)
        customer = owner.value.id if owner else None
        syncs = info.context.bypass_loaders().ledger.syncs
        page = partial(syncs.page, customer=customer, status=status)
        return await connect(info, request, forward_only(page), Sync.from_record)

    @strawberry.field
    async def webhook_events(
        self,
        info: Info,
        first: First = PAGE_SIZE,
        after: After = None,
        status: Annotated[
            EventStatus | None, strawberry.argument(description="Only events with this status.")
        ] = None,
    ) -> Connection[WebhookEvent]:
        """Support only: events received from Stripe, newest first."""
        request = page_request(first, after, default=PAGE_SIZE)
        page = partial(info.context.bypass_loaders().inbox.page, status=status)
        return await connect(info, request, forward_only(page), WebhookEvent.from_record)

    @strawberry.field
    async def holds(
        self, info: Info, first: First = PAGE_SIZE, after: After = None
    ) -> Connection[Hold]:
        """Support only: the active billing holds of all customers, oldest first."""
        request = page_request(first, after, default=PAGE_SIZE)
        page = forward_only(info.context.bypass_loaders().ledger.holds.page)
        return await connect(info, request, page, Hold.from_record)

    @strawberry.field
    async def audit_log(
        self, info: Info, first: First = PAGE_SIZE, after: After = None
    ) -> Connection[AuditEntry]:
        """Support only: audit entries of actions that concern no single customer, newest first."""
        request = page_request(first, after, default=PAGE_SIZE)
        page = partial(info.context.bypass_loaders().audit.page, None)
        return await connect(info, request, forward_only(page), AuditEntry.from_record)

    @strawberry.field
    async def stripe_budget(self, info: Info) -> StripeBudget:
        """Support only: the state of the budget for calls to Stripe, with the queue of each lane."""
        return StripeBudget.from_state(await info.context.bypass_loaders().budget.state())


def _to_node(found: FoundNode | None) -> Node | None:
    return NODE_CONVERTERS[found.kind](found.record) if found else None
