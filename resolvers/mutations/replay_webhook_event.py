"""`replayWebhookEvent` and `sweepWebhookEvents`: Support has Stripe's events processed again."""

# ruff: noqa: A002 the contract calls the argument `input`

from billing.event_ingestion import fetch_event, replay
from billing.events.records import InboxEvent
from billing.usage import CustomerId
from resolvers.audited import AuditedAction
from resolvers.context import Info
from resolvers.mutations.payloads import ReplayWebhookEventPayload, SweepWebhookEventsPayload
from resolvers.node_lookup import not_found
from resolvers.types.webhook_event import WebhookEvent
from resolvers.user_errors import with_user_errors
from resolvers.validation import validate_reason
from schema.inputs import ReplayWebhookEventInput, SweepWebhookEventsInput


@with_user_errors
async def replay_webhook_event(
    info: Info, input: ReplayWebhookEventInput
) -> ReplayWebhookEventPayload:
    """Support only: queue one of Stripe's events for processing again.

    An event that never arrived is fetched from Stripe, which keeps events for 30 days. Error: NOT_FOUND.
    """
    context = info.context
    known = await context.uncached_services().inbox.get(input.event_id)
    found = known or await fetch_event(context.uncached_services(), input.event_id)
    if found is None:
        raise not_found("event", input.event_id, "eventId")
    owner = CustomerId(found.customer) if found.customer else None
    action = AuditedAction(
        context,
        owner,
        "replayWebhookEvent",
        validate_reason(input.reason) if input.reason else None,
    )
    async with action.run(
        _describe(known) if known else {"event": found.id, "status": None}
    ) as audit:
        event = await replay(context.uncached_services(), found.id)
        if event is None:  # it expired just now, both in the inbox and in Stripe
            raise not_found("event", input.event_id, "eventId")
        audit.after = _describe(event)
    return ReplayWebhookEventPayload(event=WebhookEvent.from_record(event))


@with_user_errors
async def sweep_webhook_events(
    info: Info, input: SweepWebhookEventsInput
) -> SweepWebhookEventsPayload:
    """Support only: have a worker fetch the events that never arrived from Stripe's list of events."""
    context = info.context
    reason = validate_reason(input.reason) if input.reason else None
    action = AuditedAction(context, None, "sweepWebhookEvents", reason)
    async with action.run({}):
        await context.uncached_services().job_queue.enqueue_poll()
    return SweepWebhookEventsPayload()


def _describe(event: InboxEvent) -> dict[str, str | None]:
    return {"event": event.id, "status": event.status, "failure": event.failure}
