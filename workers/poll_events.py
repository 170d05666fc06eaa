"""Ingests events that were not delivered, from Stripe's list of events; continues after the last poll.

Undelivered events come first, because they are the reason to poll. All others follow, because a delivery that
we acknowledged may have been lost with the ledger's last second, and a disabled endpoint gets no deliveries. A
hundred known events cost one read and one script.

The cursor is the newest ingested event and moves after every page, so a poll that was interrupted or reached its
limit is continued by the next one. Stripe may list events of the same moment out of order; therefore each poll
also reads the events shortly before the cursor again.

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
OVERLAP_SECONDS = 60  # before the cursor, read again
# Pages of one poll: of events after the cursor, and of each other pass. Every ten minutes this is 10 events a second,
# and at most half a million reads in 30 days.
MAX_PAGES, MAX_OTHER_PAGES = 60, 20

NO_EVENT = ""
"""The cursor after a poll of an account without events: whatever comes later is new."""

LAST_PAGE: dict[str, Any] = {"data": [], "has_more": False}

Event = dict[str, Any]


async def poll_events(services: Services) -> int:
    """Ingest the events since the last poll, in the budget's lowest lane; return the number of new ones.

    The first poll of a ledger ingests nothing, because nothing cached is older than the ledger. Raises
    Unavailable; the next poll continues after the events ingested until then.
    """
    cursor = await services.inbox.cursor()
    if cursor is None:
        return await _start_at_latest(services)
    if cursor == NO_EVENT:
        return await _restart(services) + await _ingest_backlog(services)
    try:
        new = await _ingest_undelivered(services, cursor)
        new += await _ingest_overlap(services, cursor)
        new += await _ingest_newer(services, cursor)
    except StripeRejected as error:
        log.warning("events.cursor_lost", cursor=cursor, code=error.stripe_code)
        new = await _restart(services)
    new += await _ingest_backlog(services)
    log.info("events.polled", new=new)
    return new


async def _start_at_latest(services: Services) -> int:
    page = await _fetch_page(services, {"limit": 1})
    await services.inbox.move_cursor(page["data"][0]["id"] if page["data"] else NO_EVENT)
    return 0


async def _ingest_undelivered(services: Services, cursor: str) -> int:
    """Ingest events after *cursor* that no endpoint has acknowledged, oldest first."""
    query, new = {"delivery_success": "false", "ending_before": cursor}, 0
    async for page in _iterate_pages(services, query, MAX_OTHER_PAGES):
        new += await _ingest(services, page["data"])
    return new


async def _ingest_overlap(services: Services, cursor: str) -> int:
    """Ingest *cursor* and the events shortly before it again; StripeRejected if Stripe no longer has it."""
    event = await services.stripe.read(f"/v1/events/{cursor}", {}, lane=Lane.BACKGROUND)
    since, new = event["created"] - OVERLAP_SECONDS, await _ingest(services, [event])
    query = {"created": {"gte": since}, "starting_after": cursor}
    async for page in _iterate_pages(services, query, MAX_OTHER_PAGES):
        new += await _ingest(services, page["data"])
    return new


async def _ingest_newer(services: Services, cursor: str) -> int:
    """Ingest events after *cursor*, oldest page first, and advance the cursor after each page."""
    new, page = 0, LAST_PAGE
    async for page in _iterate_pages(services, {"ending_before": cursor}, MAX_PAGES):
        new += await _ingest(services, page["data"])
        await services.inbox.move_cursor(page["data"][0]["id"])
    if page["has_more"]:
        log.warning("events.poll_behind", pages=MAX_PAGES)
    return new


async def _restart(services: Services) -> int:
    """Continue at the newest event; the older ones that Stripe still lists become the backlog."""
    page = await _fetch_page(services, {})
    events: list[Event] = page["data"]
    new = await _ingest(services, events)
    if events:  # the backlog first: if this process ends in between, the next poll does both again
        await services.inbox.move_backlog(events[-1]["id"] if page["has_more"] else None)
        await services.inbox.move_cursor(events[0]["id"])
    return new


async def _ingest_backlog(services: Services) -> int:
    """Ingest the next pages of the backlog, newest page first."""
    oldest, new, page = await services.inbox.backlog(), 0, LAST_PAGE
    if oldest is None:
        return 0
    try:
        query = {"starting_after": oldest}
        async for page in _iterate_pages(services, query, MAX_OTHER_PAGES):
            new += await _ingest(services, page["data"])
            await services.inbox.move_backlog(page["data"][-1]["id"])
    except StripeRejected as error:  # the event has expired, and with it all older ones
        log.warning("events.backlog_expired", oldest=oldest, code=error.stripe_code)
        page = LAST_PAGE
    if not page["has_more"]:
        await services.inbox.move_backlog(None)
    return new


async def _iterate_pages(
    services: Services, query: dict[str, Any], limit: int
) -> AsyncIterator[dict[str, Any]]:
    """Yield at most *limit* pages that are not empty, each newest event first as Stripe sends them.

    *query* has the event to begin at: ``ending_before`` for ever newer pages, ``starting_after`` for older ones.
    """
    direction, at = ("ending_before", 0) if "ending_before" in query else ("starting_after", -1)
    for _ in range(limit):
        page = await _fetch_page(services, query)
        if page["data"]:
            yield page
            query = query | {direction: page["data"][at]["id"]}
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


async def _main() -> None:
    async with open_services(load_settings()) as services:
        await poll_events(services)


if __name__ == "__main__":
    asyncio.run(_main())
