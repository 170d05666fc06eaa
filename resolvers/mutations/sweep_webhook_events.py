"""`sweepWebhookEvents`: Support has the events that never arrived fetched from Stripe."""

from resolvers.audited import AuditedAction
from resolvers.context import Context
from resolvers.validation import validate_optional_reason


async def sweep_webhook_events(context: Context, reason: str | None) -> None:
    """Enqueue the job that reads Stripe's list of events."""
    reason = validate_optional_reason(reason)
    async with AuditedAction(context, None, "sweepWebhookEvents", reason).run({}):
        await context.bypass_loaders().job_queue.enqueue_poll()
