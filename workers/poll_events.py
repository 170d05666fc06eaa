"""Ingests events that were not delivered, from Stripe's list of events; continues after the last poll.

Undelivered events come first, because they are the reason to poll. All others follow, because a delivery that
we acknowledged may have been lost with the ledger's last second, and a disabled endpoint gets no deliveries. A
hundred known events cost one read and one script.

A cron polls, a worker polls at startup, and ``python -m workers.poll_events`` polls once.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import structlog

from billing.budget import Lane
from billing.errors import StripeRejected
from billing.event_ingestion import ingest
from billing.events.effects import EventRef, InvalidEvent
from billing.services import Services, open_services
from billing.settings import load_settings

log = structlog.get_logger(__name__)

PAGE = 100
# Stripe may list events of the same moment out of order, so each poll reads the last ones again.
OVERLAP_SECONDS = 60

Event = dict[str, Any]


async def poll_events(services: Services) -> int:
    """Ingest the events since the last poll, in the budget's lowest lane; return the number of new ones.

    The first poll of a ledger ingests nothing, because nothing cached is older than the ledger. Raises
    Unavailable; the next poll continues after the events ingested until then.
    """
    cursor = await services.inbox.cursor()
    if cursor is None:
        return await _start_at_latest(services)
    try:
        new = await _ingest_newer(services, cursor, undelivered=True)
        new += await _ingest_newer(services, cursor)
    except StripeRejected as error:
        log.warning("events.cursor_lost", cursor=cursor, code=error.stripe_code)
        new = await _ingest_all(services)
    log.info("events.polled", new=new)
    return new


async def _start_at_latest(services: Services) -> int:
    page = await _fetch_page(services, {"limit": 1})
    await _advance_cursor(services, page["data"], overlap=0)
    return 0


async def _ingest_newer(services: Services, cursor: str, *, undelivered: bool = False) -> int:
    """Ingest all events after *cursor*, oldest page first, and advance the cursor after each page."""
    new = 0
    query = {"delivery_success": "false"} if undelivered else {}
    async for events in _iterate_pages(services, query, "ending_before", cursor):
        new += await _ingest(services, events)
        if not undelivered:
            await _advance_cursor(services, events)
    return new


async def _ingest_all(services: Services) -> int:
    """Ingest all events that Stripe still lists, newest page first; the cursor was older than that."""
    new, newest = 0, list[Event]()
    async for events in _iterate_pages(services, {}, "starting_after", None):
        new += await _ingest(services, events)
        newest = newest or events
    await _advance_cursor(services, newest, overlap=0)
    return new


async def _iterate_pages(
    services: Services, query: dict[str, Any], direction: str, cursor: str | None
) -> AsyncIterator[list[Event]]:
    """Yield the pages after *cursor* in *direction*, each newest first, as Stripe sends them."""
    while True:
        page = await _fetch_page(services, query | ({direction: cursor} if cursor else {}))
        events: list[Event] = page["data"]
        if events:
            yield events
            cursor = events[0 if direction == "ending_before" else -1]["id"]
        if not page["has_more"]:
            return


async def _fetch_page(services: Services, query: dict[str, Any]) -> dict[str, Any]:
    return await services.stripe.read("/v1/events", {"limit": PAGE} | query, lane=Lane.BACKGROUND)


async def _ingest(services: Services, events: list[Event]) -> int:
    """Ingest the events that have an effect: Stripe lists all types, whatever our endpoint selected."""
    refs = [ref for ref in map(_parse_event, events) if ref and ref.effect]
    return sum(await ingest(services, refs))


def _parse_event(event: Event) -> EventRef | None:
    try:
        return EventRef.from_payload(event)
    except InvalidEvent as error:
        log.warning("events.unreadable", reason=str(error))
        return None


async def _advance_cursor(
    services: Services, events: list[Event], *, overlap: int = OVERLAP_SECONDS
) -> None:
    older = [event["id"] for event in events if event["created"] <= events[0]["created"] - overlap]
    if older:
        await services.inbox.move_cursor(older[0])


async def _main() -> None:
    async with open_services(load_settings()) as services:
        await poll_events(services)


if __name__ == "__main__":
    asyncio.run(_main())
