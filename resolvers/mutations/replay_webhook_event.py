"""Support has one of Stripe's events taken up again, or all looked for that never arrived."""

# ruff: noqa: A002 the contract calls the argument `input`

from billing.event_ingestion import fetch_event, replay
from billing.events.events import InboxEvent
from billing.usage import CustomerId
from resolvers.audited import Act
from resolvers.context import Info
from resolvers.mutations.payloads import ReplayWebhookEventPayload, SweepWebhookEventsPayload
from resolvers.node_lookup import not_found
from resolvers.types.webhook_event import WebhookEvent
from resolvers.user_errors import refusing
from resolvers.validation import reasoned
from schema.inputs import ReplayWebhookEventInput, SweepWebhookEventsInput


@refusing
async def replay_webhook_event(
    info: Info, input: ReplayWebhookEventInput
) -> ReplayWebhookEventPayload:
    """Support only: take up one of Stripe's events again, or for the first time when it never arrived."""
    context = info.context
    known = await context.services.inbox.get(input.event_id)
    found = known or await fetch_event(context.services, input.event_id)
    if found is None:
        raise not_found("event", input.event_id, "eventId")
    owner = CustomerId(found.customer) if found.customer else None
    act = Act(
        context, owner, "replayWebhookEvent", reasoned(input.reason) if input.reason else None
    )
    async with act.noted(_words(known) if known else {"event": found.id, "status": None}) as noted:
        event = await replay(context.services, found.id)
        if event is None:  # forgotten this moment, here and at Stripe
            raise not_found("event", input.event_id, "eventId")
        noted.after = _words(event)
    return ReplayWebhookEventPayload(event=WebhookEvent.of(event))


@refusing
async def sweep_webhook_events(
    info: Info, input: SweepWebhookEventsInput
) -> SweepWebhookEventsPayload:
    """Support only: have a worker go through Stripe's list of events for those that never arrived."""
    context = info.context
    reason = reasoned(input.reason) if input.reason else None
    act = Act(context, None, "sweepWebhookEvents", reason)
    async with act.noted({}):
        await context.services.wakeups.sweep()
    return SweepWebhookEventsPayload()


def _words(event: InboxEvent) -> dict[str, str | None]:
    return {"event": event.id, "status": event.status, "failure": event.failure}
