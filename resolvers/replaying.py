"""Support has one of Stripe's events taken up again."""

# ruff: noqa: A002 the contract calls the argument `input`

import structlog

from billing.intake import replay
from billing.usage import CustomerId
from resolvers.audit import Act
from resolvers.context import Info
from resolvers.finding import not_found
from resolvers.payloads import ReplayWebhookEventPayload
from resolvers.refusing import refusing
from resolvers.webhook_event import WebhookEvent
from schema.types.inputs import ReplayWebhookEventInput

log = structlog.get_logger(__name__)


@refusing
async def replay_webhook_event(
    info: Info, input: ReplayWebhookEventInput
) -> ReplayWebhookEventPayload:
    """Support only: take up one of Stripe's events again, or for the first time when it never arrived."""
    context = info.context
    was = await context.services.inbox.get(input.event_id)
    event = await replay(context.services, input.event_id)
    if event is None:
        raise not_found("event", input.event_id, "eventId")
    if event.customer:
        await Act(context, CustomerId(event.customer), "replayWebhookEvent").done(
            before=was and {"event": was.id, "status": was.status, "failure": was.failure},
            after={"event": event.id, "status": event.status},
        )
    else:  # prices and the like belong to nobody's log
        log.info("support.replayed", event=event.id, by=context.viewer.subject)
    return ReplayWebhookEventPayload(event=WebhookEvent.of(event))
