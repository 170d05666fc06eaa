"""The questions that can be asked: one entry each, answered in the noun's own file."""

from typing import Annotated

import strawberry

from resolvers.context import Info
from resolvers.customer import Customer
from resolvers.invoice import Invoice
from resolvers.stripe_budget import StripeBudget
from resolvers.sync import Sync, SyncStatus
from resolvers.viewer import CUSTOMERS, Viewer
from resolvers.webhook_event import WebhookEvent, WebhookEventStatus
from schema.types.connections import After, Connection, First
from schema.types.describing import graphql_type
from schema.types.node import Node

AnyId = Annotated[
    strawberry.ID,
    strawberry.argument(name="id", description="Stripe's id, or one of ours."),
]
PAGE = 20


@graphql_type
class Query:
    """Everything that can be looked up."""

    @strawberry.field
    async def node(self, info: Info, any_id: AnyId) -> Node | None:
        """Whatever has this id, if the viewer may see it."""
        raise NotImplementedError

    @strawberry.field
    async def nodes(self, info: Info, ids: list[strawberry.ID]) -> list[Node | None]:
        """As `node`, for several ids, in their order; at most 100."""
        raise NotImplementedError

    @strawberry.field
    def viewer(self, info: Info) -> Viewer:
        """Who is asking."""
        raise NotImplementedError

    @strawberry.field
    async def customer(self, info: Info, any_id: AnyId) -> Customer | None:
        """The customer with this id, or to whom the thing with this id belongs (an invoice, a sync, …).

        Null when there is none, or when it is not the viewer's: the two cannot be told apart.
        """
        raise NotImplementedError

    @strawberry.field
    async def invoice(self, info: Info, any_id: AnyId) -> Invoice | None:
        """The invoice with this id; null when there is none, or when it is not the viewer's."""
        raise NotImplementedError

    @strawberry.field
    async def sync(self, info: Info, any_id: AnyId) -> Sync | None:
        """The sync with this id; null when there is none, or when it is not the viewer's."""
        raise NotImplementedError

    @strawberry.field
    async def customers(
        self,
        info: Info,
        first: First = CUSTOMERS,
        after: After = None,
        email: str | None = None,
    ) -> Connection[Customer]:
        """Support only: all customers, newest first, or those with exactly this e-mail address."""
        raise NotImplementedError

    @strawberry.field
    async def syncs(
        self,
        info: Info,
        first: First = PAGE,
        after: After = None,
        status: SyncStatus | None = None,
        customer_id: strawberry.ID | None = None,
    ) -> Connection[Sync]:
        """Support only: syncs, newest first."""
        raise NotImplementedError

    @strawberry.field
    async def webhook_events(
        self,
        info: Info,
        first: First = PAGE,
        after: After = None,
        status: WebhookEventStatus | None = None,
    ) -> Connection[WebhookEvent]:
        """Support only: what Stripe announced, newest first."""
        raise NotImplementedError

    @strawberry.field
    async def stripe_budget(self, info: Info) -> StripeBudget:
        """Support only: what of Stripe's rate allowance is left, and who is waiting for it."""
        raise NotImplementedError
