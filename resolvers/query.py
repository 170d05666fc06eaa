"""The root type Query."""

import asyncio
from typing import Annotated

import strawberry

from billing.events.records import EventStatus
from billing.ledger.syncs import SyncStatus
from resolvers.context import Info
from resolvers.customer_search import search_customers
from resolvers.node_lookup import find_customer, find_node
from resolvers.types.audit import AuditEntry
from resolvers.types.customer import CUSTOMERS_PAGE_SIZE, Customer, customers_page
from resolvers.types.hold import Hold
from resolvers.types.invoice import Invoice
from resolvers.types.stripe_budget import StripeBudget
from resolvers.types.sync import Sync
from resolvers.types.viewer import Viewer
from resolvers.types.webhook_event import WebhookEvent
from schema.connections import (
    MAX_PAGE_SIZE,
    After,
    Before,
    Connection,
    First,
    Last,
    bad_input,
    page_request,
)
from schema.decorators import graphql_type
from schema.types.node import Node

AnyId = Annotated[
    strawberry.ID,
    strawberry.argument(
        name="id", description="Id of any object, from Stripe or from the gateway."
    ),
]
Ids = Annotated[
    list[strawberry.ID],
    strawberry.argument(
        description="At most 100 ids, from Stripe or from the gateway, in any order."
    ),
]
PAGE_SIZE = 20


@graphql_type
class Query:
    """All queries. An object that the viewer may not see is answered as if it did not exist."""

    @strawberry.field
    async def node(self, info: Info, any_id: AnyId) -> Node | None:
        """The object with this id; null if it does not exist or is not visible to the viewer."""
        info.context.note_selection(info)
        return await find_node(info.context, any_id)

    @strawberry.field
    async def nodes(self, info: Info, ids: Ids) -> list[Node | None]:
        """The objects with these ids, in the order of `ids`, each as `node` returns it."""
        if len(ids) > MAX_PAGE_SIZE:
            raise bad_input(
                f"`ids` has {len(ids)} entries; at most {MAX_PAGE_SIZE} are looked up at once."
            )
        info.context.note_selection(info)
        return await asyncio.gather(*(find_node(info.context, any_id) for any_id in ids))

    @strawberry.field
    def viewer(self, info: Info) -> Viewer:
        """The bearer of the token that authenticates this request."""
        return Viewer(role=info.context.viewer.role)

    @strawberry.field
    async def customer(self, info: Info, any_id: AnyId) -> Customer | None:
        """The customer with this id, or the owner of the object with this id (an invoice, a sync, ...).

        Null if there is none or if it is not visible to the viewer; the two cases cannot be told apart.
        """
        info.context.note_selection(info)
        return await find_customer(info.context, any_id)

    @strawberry.field
    async def invoice(self, info: Info, any_id: AnyId) -> Invoice | None:
        """The invoice with this id; null if it does not exist or is not visible to the viewer."""
        node = await find_node(info.context, any_id)
        return node if isinstance(node, Invoice) else None

    @strawberry.field
    async def sync(self, info: Info, any_id: AnyId) -> Sync | None:
        """The sync with this id; null if it does not exist or is not visible to the viewer."""
        node = await find_node(info.context, any_id)
        return node if isinstance(node, Sync) else None

    @strawberry.field
    async def customers(  # noqa: PLR0913 the contract's arguments
        self,
        info: Info,
        *,
        first: First = CUSTOMERS_PAGE_SIZE,
        after: After = None,
        last: Last = None,
        before: Before = None,
        email: Annotated[
            str | None,
            strawberry.argument(description="Only customers with exactly this e-mail address."),
        ] = None,
        search: Annotated[
            str | None,
            strawberry.argument(
                description="An e-mail address, an organization, part of a name, or any id; exclusive of `email`. "
                "A search by words has one page. Empty: all customers.",
            ),
        ] = None,
    ) -> Connection[Customer]:
        """Support only: customers, newest first; all of them, or those that match `email` or `search`."""
        info.context.note_selection(info)
        window = page_request(first, after, last, before, default=CUSTOMERS_PAGE_SIZE)
        if search and email:
            raise bad_input("Give `email` or `search`, not both.")
        if search is not None:
            return await search_customers(info, search, window)
        return await customers_page(info, window, email)

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
        owner = await find_customer(info.context, customer_id) if customer_id else None
        if customer_id and owner is None:
            return Connection[Sync].from_entries([], has_more=False)
        window = page_request(first, after, default=PAGE_SIZE)
        page = await info.context.uncached_services().syncs.page(
            window.size, window.after, status=status, customer=owner.record.id if owner else None
        )
        entries = [(sync.id, Sync.from_record(sync)) for sync in page.items]
        return Connection[Sync].from_entries(entries, has_more=page.has_more, request=window)

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
        window = page_request(first, after, default=PAGE_SIZE)
        page = await info.context.uncached_services().inbox.page(window.size, window.after, status)
        entries = [(event.id, WebhookEvent.from_record(event)) for event in page.items]
        return Connection[WebhookEvent].from_entries(entries, has_more=page.has_more, request=window)

    @strawberry.field
    async def holds(
        self, info: Info, first: First = PAGE_SIZE, after: After = None
    ) -> Connection[Hold]:
        """Support only: the active billing holds of all customers, oldest first."""
        window = page_request(first, after, default=PAGE_SIZE)
        page = await info.context.uncached_services().ledger.list_holds(window.size, window.after)
        entries = [(hold.id, Hold.from_record(hold)) for hold in page.items]
        return Connection[Hold].from_entries(entries, has_more=page.has_more, request=window)

    @strawberry.field
    async def audit_log(
        self, info: Info, first: First = PAGE_SIZE, after: After = None
    ) -> Connection[AuditEntry]:
        """Support only: audit entries of actions that concern no single customer, newest first."""
        window = page_request(first, after, default=PAGE_SIZE)
        page = await info.context.uncached_services().audit.page(None, window.size, window.after)
        entries = [(entry.id, AuditEntry.from_record(entry)) for entry in page.items]
        return Connection[AuditEntry].from_entries(entries, has_more=page.has_more, request=window)

    @strawberry.field
    async def stripe_budget(self, info: Info) -> StripeBudget:
        """Support only: the state of the budget for calls to Stripe, with the queue of each lane."""
        return StripeBudget.from_state(await info.context.uncached_services().budget.state())
