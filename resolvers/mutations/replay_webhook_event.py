"""`replayWebhookEvent`: Support has one of Stripe's events processed again."""

from billing.event_ingestion import fetch_event, replay
from billing.events.records import InboxEvent
from billing.usage import CustomerId
from resolvers.audited import AuditedAction
from resolvers.context import Context
from resolvers.node_lookup import not_found
from resolvers.validation import validate_optional_reason


async def replay_webhook_event(context: Context, event_id: str, reason: str | None) -> InboxEvent:
    """Queue the event, from the inbox or from Stripe; Refused (NOT_FOUND) if neither has it."""
    services = context.bypass_loaders()
    stored = await services.inbox.get(event_id)
    found = stored or await fetch_event(services, event_id)
    if found is None:
        raise not_found("event", event_id, "eventId")
    customer = CustomerId(found.customer) if found.customer else None
    reason = validate_optional_reason(reason)
    action = AuditedAction(context, customer, "replayWebhookEvent", reason)
    before = _audit_values(stored) if stored else {"event": found.id, "status": None}
    async with action.run(before) as audit:
        event = await replay(services, found.id)
        if event is None:  # it expired just now, both in the inbox and in Stripe
            raise not_found("event", event_id, "eventId")
        audit.after = _audit_values(event)
    return event


def _audit_values(event: InboxEvent) -> dict[str, str | None]:
    return {"event": event.id, "status": event.status, "failure": event.failure}
