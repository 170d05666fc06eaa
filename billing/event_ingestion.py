"""The way in for every event of Stripe's, whether it was delivered, swept up or asked for."""

import asyncio
from collections.abc import Sequence

from billing.budget import Lane
from billing.errors import StripeRejected
from billing.events.effects import EVENT_ID, NotAnEvent, Notice
from billing.events.events import InboxEvent
from billing.services import Services


async def take_in(services: Services, notices: Sequence[Notice]) -> list[bool]:
    """Keep the events and forget what they touch; for each whether it is new.

    Both at once, because Stripe changed before it told us: what is read from now on is new whichever
    comes first. Duplicates forget too: the first delivery may have died having done one of the two.
    Raises LedgerUnavailable or CacheGone: take them in again.
    """
    touched = {name for each in notices for name in each.generations}
    if not touched:
        return await services.inbox.receive(notices)
    new, _ = await asyncio.gather(services.inbox.receive(notices), services.cache.forget(*touched))
    return new


async def replay(services: Services, event_id: str) -> InboxEvent | None:
    """Have an event worked on again, or for the first time when it never arrived: Stripe is asked for it.

    None when Stripe does not know it either. Raises Unavailable.
    """
    if found := await services.inbox.requeue(event_id):
        return found
    if notice := await fetch_event(services, event_id):
        await take_in(services, [notice])
    return await services.inbox.get(event_id)


async def fetch_event(services: Services, event_id: str) -> Notice | None:
    """What Stripe says of an event; None when it knows none of this id. Raises Unavailable."""
    if not EVENT_ID.fullmatch(event_id):
        return None
    try:
        body = await services.stripe.read(f"/v1/events/{event_id}", lane=Lane.SUPPORT)
        return Notice.of(body)
    except (StripeRejected, NotAnEvent):
        return None
