"""The questions that can be asked: one entry each, answered in the noun's own file."""

import asyncio
from typing import Annotated

import strawberry

from billing.events.events import EventStatus
from billing.ledger.syncs import SyncStatus
from resolvers.context import Info
from resolvers.customer_search import search_customers
from resolvers.node_lookup import find, find_customer
from resolvers.types.audit import AuditEntry
from resolvers.types.customer import CUSTOMERS, Customer, customers_page
from resolvers.types.hold import Hold
from resolvers.types.invoice import Invoice
from resolvers.types.stripe_budget import StripeBudget
from resolvers.types.sync import Sync
from resolvers.types.viewer import Viewer
from resolvers.types.webhook_event import WebhookEvent
from schema.connections import (
    MOST,
    After,
    Before,
    Connection,
    First,
    Last,
    bad_input,
    window_of,
)
from schema.decorators import graphql_type
from schema.types.node import Node

AnyId = Annotated[
    strawberry.ID,
    strawberry.argument(name="id", description="Stripe's id, or one of ours."),
]
Ids = Annotated[
    list[strawberry.ID],
    strawberry.argument(description="Stripe's ids, or ours, in any mixture."),
]
PAGE = 20


@graphql_type
class Query:
    """Everything that can be looked up."""

    @strawberry.field
    async def node(self, info: Info, any_id: AnyId) -> Node | None:
        """Whatever has this id, if the viewer may see it."""
        info.context.look_ahead(info)
        return await find(info.context, any_id)

    @strawberry.field
    async def nodes(self, info: Info, ids: Ids) -> list[Node | None]:
        """As `node`, for several ids, in their order; at most 100."""
        if len(ids) > MOST:
            raise bad_input(f"`ids` has {len(ids)} entries; at most {MOST} are looked up at once.")
        info.context.look_ahead(info)
        return await asyncio.gather(*(find(info.context, each) for each in ids))

    @strawberry.field
    def viewer(self, info: Info) -> Viewer:
        """Who is asking."""
        return Viewer(role=info.context.viewer.role)

    @strawberry.field
    async def customer(self, info: Info, any_id: AnyId) -> Customer | None:
        """The customer with this id, or to whom the thing with this id belongs (an invoice, a sync, …).

        Null when there is none, or when it is not the viewer's: the two cannot be told apart.
        """
        info.context.look_ahead(info)
        return await find_customer(info.context, any_id)

    @strawberry.field
    async def invoice(self, info: Info, any_id: AnyId) -> Invoice | None:
        """The invoice with this id; null when there is none, or when it is not the viewer's."""
        node = await find(info.context, any_id)
        return node if isinstance(node, Invoice) else None

    @strawberry.field
    async def sync(self, info: Info, any_id: AnyId) -> Sync | None:
        """The sync with this id; null when there is none, or when it is not the viewer's."""
        node = await find(info.context, any_id)
        return node if isinstance(node, Sync) else None

    @strawberry.field
    async def customers(  # noqa: PLR0913 the contract's arguments
        self,
        info: Info,
        *,
        first: First = CUSTOMERS,
        after: After = None,
        last: Last = None,
        before: Before = None,
        email: Annotated[
            str | None, strawberry.argument(description="Those with exactly this address.")
        ] = None,
        search: Annotated[
            str | None,
            strawberry.argument(
                description="What you have at hand: an e-mail address, an organization, a name, or any id. "
                "Empty: everybody, newest first.",
            ),
        ] = None,
    ) -> Connection[Customer]:
        """Support only: all customers, newest first, or those that `email` or `search` names."""
        info.context.look_ahead(info)
        window = window_of(first, after, last, before, default=CUSTOMERS)
        if search and email:
            raise bad_input("Give `email` or `search`, not both.")
        if search is not None:
            return await search_customers(info, search, window)
        return await customers_page(info, window, email)

    @strawberry.field
    async def syncs(
        self,
        info: Info,
        first: First = PAGE,
        after: After = None,
        status: Annotated[
            SyncStatus | None, strawberry.argument(description="Only those that came so far.")
        ] = None,
        customer_id: Annotated[
            strawberry.ID | None, strawberry.argument(description="Only this customer's.")
        ] = None,
    ) -> Connection[Sync]:
        """Support only: syncs, newest first; of one customer, or of the one to whom something belongs."""
        owner = await find_customer(info.context, customer_id) if customer_id else None
        if customer_id and owner is None:
            return Connection[Sync].of([], has_more=False)
        window = window_of(first, after, default=PAGE)
        page = await info.context.services.syncs.page(
            window.size, window.after, status=status, customer=owner.record.id if owner else None
        )
        entries = [(sync.id, Sync.of(sync)) for sync in page.items]
        return Connection[Sync].of(entries, has_more=page.has_more, window=window)

    @strawberry.field
    async def webhook_events(
        self,
        info: Info,
        first: First = PAGE,
        after: After = None,
        status: Annotated[
            EventStatus | None, strawberry.argument(description="Only those that ended so.")
        ] = None,
    ) -> Connection[WebhookEvent]:
        """Support only: what Stripe announced, newest first."""
        window = window_of(first, after, default=PAGE)
        page = await info.context.services.inbox.page(window.size, window.after, status)
        entries = [(event.id, WebhookEvent.of(event)) for event in page.items]
        return Connection[WebhookEvent].of(entries, has_more=page.has_more, window=window)

    @strawberry.field
    async def holds(self, info: Info, first: First = PAGE, after: After = None) -> Connection[Hold]:
        """Support only: the holds that stand, over all customers, oldest first."""
        window = window_of(first, after, default=PAGE)
        page = await info.context.services.ledger.holds(window.size, window.after)
        entries = [(each.id, Hold.of(each)) for each in page.items]
        return Connection[Hold].of(entries, has_more=page.has_more, window=window)

    @strawberry.field
    async def audit_log(
        self, info: Info, first: First = PAGE, after: After = None
    ) -> Connection[AuditEntry]:
        """Support only: what Support did that concerns no customer in particular, newest first."""
        window = window_of(first, after, default=PAGE)
        page = await info.context.services.audit.page(None, window.size, window.after)
        entries = [(entry.id, AuditEntry.of(entry)) for entry in page.items]
        return Connection[AuditEntry].of(entries, has_more=page.has_more, window=window)

    @strawberry.field
    async def stripe_budget(self, info: Info) -> StripeBudget:
        """Support only: what of Stripe's rate allowance is left, and who is waiting for it."""
        return StripeBudget.of(await info.context.services.budget.state())
