"""Takes in what never arrived: Stripe's own list of events, walked on from where the last sweep stopped.

Undelivered events come first, because they are why anybody sweeps; then all others, because a delivery
that was answered may have been lost with the ledger's last second, and an endpoint that was switched
off has none. A hundred known events cost one read and one script.

A cron sweeps, and so does a worker that starts; ``python -m workers.poll_events`` does when asked.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import structlog

from billing.budget import Lane
from billing.errors import StripeRejected
from billing.event_ingestion import take_in
from billing.events.effects import NotAnEvent, Notice
from billing.services import Services, open_services
from billing.settings import load_settings

log = structlog.get_logger(__name__)

PAGE = 100
# Events of one moment may be listed out of turn, so each sweep looks at the last ones once more.
OVERLAP_SECONDS = 60

Event = dict[str, Any]


async def sweep_events(services: Services) -> int:
    """Take in the events since the last sweep, in the budget's lowest lane; how many were new.

    The first sweep of a ledger takes in nothing: no answer can be older than the ledger. Raises
    Unavailable; what was taken in until then is kept, and the next sweep goes on from there.
    """
    cursor = await services.inbox.cursor()
    if cursor is None:
        return await _begin(services)
    try:
        new = await _take_newer(services, cursor, undelivered=True)
        new += await _take_newer(services, cursor)
    except StripeRejected as error:
        log.warning("events.cursor_lost", cursor=cursor, code=error.stripe_code)
        new = await _take_everything(services)
    log.info("events.swept", new=new)
    return new


async def _begin(services: Services) -> int:
    page = await _page(services, {"limit": 1})
    await _remember(services, page["data"], overlap=0)
    return 0


async def _take_newer(services: Services, cursor: str, *, undelivered: bool = False) -> int:
    """Everything after the event *cursor*, oldest page first, the cursor following behind."""
    new = 0
    query = {"delivery_success": "false"} if undelivered else {}
    async for events in _pages(services, query, "ending_before", cursor):
        new += await _take(services, events)
        if not undelivered:
            await _remember(services, events)
    return new


async def _take_everything(services: Services) -> int:
    """All that Stripe still lists, newest page first: the cursor was older than that."""
    new, newest = 0, list[Event]()
    async for events in _pages(services, {}, "starting_after", None):
        new += await _take(services, events)
        newest = newest or events
    await _remember(services, newest, overlap=0)
    return new


async def _pages(
    services: Services, query: dict[str, Any], direction: str, mark: str | None
) -> AsyncIterator[list[Event]]:
    """Pages on from the event *mark*, each newest first as Stripe gives it."""
    while True:
        page = await _page(services, query | ({direction: mark} if mark else {}))
        events: list[Event] = page["data"]
        if events:
            yield events
            mark = events[0 if direction == "ending_before" else -1]["id"]
        if not page["has_more"]:
            return


async def _page(services: Services, query: dict[str, Any]) -> dict[str, Any]:
    return await services.stripe.read("/v1/events", {"limit": PAGE} | query, lane=Lane.BACKGROUND)


async def _take(services: Services, events: list[Event]) -> int:
    """Only types with an effect: Stripe lists every type there is, whatever our endpoint selected."""
    notices = [notice for notice in map(_notice, events) if notice and notice.effect]
    return sum(await take_in(services, notices))


def _notice(event: Event) -> Notice | None:
    try:
        return Notice.of(event)
    except NotAnEvent as error:
        log.warning("events.unreadable", reason=str(error))
        return None


async def _remember(
    services: Services, events: list[Event], *, overlap: int = OVERLAP_SECONDS
) -> None:
    behind = [e["id"] for e in events if e["created"] <= events[0]["created"] - overlap]
    if behind:
        await services.inbox.move_cursor(behind[0])


async def _main() -> None:
    async with open_services(load_settings()) as services:
        await sweep_events(services)


if __name__ == "__main__":
    asyncio.run(_main())
