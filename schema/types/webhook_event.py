"""The webhook event type: an event from Stripe and its processing status."""

from datetime import datetime

import strawberry

from billing.events.records import EventStatus, InboxEvent
from schema.decorators import graphql_enum, graphql_type
from schema.info import Info
from schema.scalars import to_datetime, to_optional_datetime
from schema.stripe_links import dashboard_url
from schema.types.node import Node

graphql_enum(
    "WebhookEventStatus",
    PENDING="Received and stored; waiting for a worker.",
    PROCESSED="Processed without an error.",
    IGNORED="Without effect: an unknown type, or an echo of the gateway's own write.",
    FAILED="Given up after several attempts; `replayWebhookEvent` tries again.",
)(EventStatus)


@graphql_type
class WebhookEvent(Node):
    """A webhook event from Stripe. It only tells that an object may have changed; the object is read again."""

    id: strawberry.ID = strawberry.field(description="Stripe event id, `evt_…`.")
    type: str = strawberry.field(description="Stripe's event type, such as `invoice.paid`.")
    status: EventStatus = strawberry.field(description="Processing status of the event.")
    received_at: datetime = strawberry.field(description="Time at which it first arrived.")
    processed_at: datetime | None = strawberry.field(
        description="Time at which processing finished; null until then."
    )
    attempts: int = strawberry.field(description="Number of processing attempts so far.")
    object_id: strawberry.ID | None = strawberry.field(
        description="Id of the Stripe object that the event is about; null when it names none."
    )
    customer_id: strawberry.ID | None = strawberry.field(
        description="Customer that the event concerns; null when it concerns none."
    )
    failure: str | None = strawberry.field(
        description="Error of the last failed attempt; null when none failed."
    )

    @strawberry.field
    def stripe_dashboard_url(self, info: Info) -> str:
        """Link to this event in Stripe's Dashboard, with its payload and deliveries."""
        return dashboard_url(info.context, "events", self.id)

    @classmethod
    def from_record(cls, event: InboxEvent) -> "WebhookEvent":
        """Convert an *event* of the inbox."""
        return cls(
            id=strawberry.ID(event.id),
            type=event.type,
            status=event.status,
            received_at=to_datetime(event.received_ms),
            processed_at=to_optional_datetime(event.processed_ms),
            attempts=event.attempts,
            object_id=strawberry.ID(event.object_id) if event.object_id else None,
            customer_id=strawberry.ID(event.customer) if event.customer else None,
            failure=event.failure,
        )
