"""Ingestion of Stripe's events, whether delivered by webhook, polled or replayed."""

import asyncio
from collections.abc import Sequence

from billing.budget import Lane
from billing.errors import StripeRejected
from billing.events.effects import EVENT_ID, EventRef, InvalidEvent
from billing.events.records import InboxEvent
from billing.services import Services


async def ingest(services: Services, events: Sequence[EventRef]) -> list[bool]:
    """Store the events and invalidate the generations they name; returns for each if it is new.

    Both run concurrently, because Stripe changed before it sent the event: reads from now on see the new
    state whichever completes first. Duplicates invalidate too, because the first ingestion may have failed
    halfway. Raises LedgerUnavailable or CacheUnavailable: ingest them again.
    """
    generations = {name for event in events for name in event.generations}
    if not generations:
        return await services.inbox.receive(events)
    new, _ = await asyncio.gather(
        services.inbox.receive(events), services.cache.invalidate(*generations)
    )
    return new


async def replay(services: Services, event_id: str) -> InboxEvent | None:
    """Process an event again; one that never arrived is fetched from Stripe.

    None if Stripe does not have it either. Raises Unavailable.
    """
    if requeued := await services.inbox.requeue(event_id):
        return requeued
    if event := await fetch_event(services, event_id):
        await ingest(services, [event])
    return await services.inbox.get(event_id)


async def fetch_event(services: Services, event_id: str) -> EventRef | None:
    """Fetch an event from Stripe; None if it has none of this id. Raises Unavailable."""
    if not EVENT_ID.fullmatch(event_id):
        return None
    try:
        body = await services.stripe.read(f"/v1/events/{event_id}", lane=Lane.SUPPORT)
        return EventRef.from_payload(body)
    except (StripeRejected, InvalidEvent):
        return None
