"""Telling that the ledger's side of a customer has changed: to what is kept, and to who is watching."""

from contextlib import suppress

from billing.cache import tags
from billing.cache.server import CacheGone
from billing.changes import Change
from billing.services import Services


async def announce(services: Services, change: Change) -> None:
    """No answer kept before *change* is given again; who watches the customer hears of it."""
    with suppress(CacheGone):  # nothing can be kept without it either
        await services.cache.forget(tags.usage(change.customer))
    await services.changes.publish(change)
