"""What Stripe announced, and what became of it."""

from datetime import datetime

import strawberry

from billing.events.events import EventStatus, InboxEvent
from resolvers.context import Context, Info
from resolvers.types.stripe_links import dashboard
from resolvers.types.timestamps import maybe_moment, moment
from schema.decorators import graphql_enum, graphql_type
from schema.types.node import Node

graphql_enum(
    "WebhookEventStatus",
    PENDING="Received and kept; a worker takes it up within a moment.",
    PROCESSED="Done.",
    IGNORED="Of a kind that changes nothing here.",
    FAILED="Tried and given up; `replayWebhookEvent` tries again.",
)(EventStatus)


@graphql_type
class WebhookEvent(Node):
    """An event of Stripe's: it says that an object may have changed, and nothing more is taken from it."""

    id: strawberry.ID = strawberry.field(description="Stripe's id, `evt_…`.")
    type: str = strawberry.field(description="Stripe's word for what happened: `invoice.paid`.")
    status: EventStatus = strawberry.field(description="What became of it.")
    received_at: datetime = strawberry.field(description="When it first arrived.")
    processed_at: datetime | None = strawberry.field(description="When it was done with.")
    attempts: int = strawberry.field(description="How often it was tried.")
    object_id: strawberry.ID | None = strawberry.field(description="The object that it speaks of.")
    customer_id: strawberry.ID | None = strawberry.field(
        description="The customer whom it touches."
    )
    failure: str | None = strawberry.field(description="What went wrong last.")

    @strawberry.field
    def stripe_dashboard_url(self, info: Info) -> str:
        """This event in Stripe's Dashboard, with what Stripe sent and how often."""
        return dashboard(info.context, "events", self.id)

    @classmethod
    async def find(cls, context: Context, event: str) -> "WebhookEvent | None":
        """The event with this id, if it came and is still kept."""
        found = await context.services.inbox.get(event)
        return cls.of(found) if found else None

    @classmethod
    def of(cls, event: InboxEvent) -> "WebhookEvent":
        """*event* as clients see it."""
        return cls(
            owner=event.customer,
            id=strawberry.ID(event.id),
            type=event.type,
            status=event.status,
            received_at=moment(event.received_ms),
            processed_at=maybe_moment(event.processed_ms),
            attempts=event.attempts,
            object_id=strawberry.ID(event.object_id) if event.object_id else None,
            customer_id=strawberry.ID(event.customer) if event.customer else None,
            failure=event.failure,
        )
