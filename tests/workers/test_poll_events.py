"""Events that were not delivered are polled from Stripe's list and ingested once."""

import asyncio
import sys
from dataclasses import replace
from typing import Any, cast

import pytest

from billing.budget import Lane
from billing.errors import Unavailable
from billing.event_ingestion import replay
from billing.events.records import EventStatus
from billing.invoicing.snapshot import PeriodState
from billing.job_queue import POLL_EVENTS_JOB, open_job_queue
from billing.services import Services
from billing.settings import Settings
from billing.stripe import StripeApi, resources
from tests.support.system import environment
from tests.support.webhook_server import WebhookWorld
from workers.main import worker_settings
from workers.poll_events import poll_events


async def edit_draft(world: WebhookWorld, invoice: str, times: int) -> None:
    """Edit a draft as a person would; each edit is an event."""
    for n in range(times):
        await world.sandbox.dashboard("update", invoice, description=f"edit {n}")


async def ids_in_inbox(world: WebhookWorld) -> list[str]:
    """Return the ids in the inbox, oldest first."""
    return [event.id for event in (await world.services.inbox.page(1000)).items][::-1]


async def ids_at_stripe(world: WebhookWorld, kind: str) -> list[str]:
    """Return the ids of Stripe's events of one type, newest first."""
    events = await world.services.stripe.list_all(
        "/v1/events", {"type": kind}, lane=Lane.BACKGROUND
    )
    return [event["id"] for event in events]


async def test_first_poll_ingests_nothing(world_without_webhooks: WebhookWorld) -> None:
    """A new ledger has no cached answer that is older than Stripe's events."""
    await world_without_webhooks.shop.customer()

    assert await poll_events(world_without_webhooks.services) == 0
    assert await ids_in_inbox(world_without_webhooks) == []
    assert (
        await world_without_webhooks.services.inbox.cursor()
        == (await ids_at_stripe(world_without_webhooks, "*"))[0]
    )


async def test_account_without_events_is_not_an_error(world_without_webhooks: WebhookWorld) -> None:
    """The sandbox is as empty as a new Stripe account."""
    await world_without_webhooks.sandbox.reset()

    assert await poll_events(world_without_webhooks.services) == 0
    assert await ids_in_inbox(world_without_webhooks) == []


async def test_first_look_at_an_empty_list_is_a_beginning(
    world_without_webhooks: WebhookWorld,
) -> None:
    """The account's first events must not be taken for older than the ledger."""
    world = world_without_webhooks
    await world.sandbox.reset()
    await poll_events(world.services)
    await world.shop.open()
    await world.shop.customer()

    new = await poll_events(world.services)

    assert new > 0
    assert await world.services.inbox.cursor() == (await ids_at_stripe(world, "*"))[0]
    assert await poll_events(world.services) == 0


async def test_events_during_downtime_are_found_and_processed(
    world_without_webhooks: WebhookWorld,
) -> None:
    """The gateway was down while a person finalized an invoice: the period ends all the same."""
    customer, draft = await world_without_webhooks.billed()
    await poll_events(world_without_webhooks.services)
    assert await _status(world_without_webhooks, draft["id"]) == "draft"
    await world_without_webhooks.sandbox.dashboard("finalize", draft["id"])
    assert await _status(world_without_webhooks, draft["id"]) == "draft"  # no event has arrived yet

    assert await poll_events(world_without_webhooks.services) > 0
    assert await _status(world_without_webhooks, draft["id"]) != "draft"
    await world_without_webhooks.process_events()
    await world_without_webhooks.flushed(customer)
    assert (await world_without_webhooks.ledger(customer)).state is PeriodState.SEALED


async def _status(world: WebhookWorld, invoice: str) -> str:
    async def load() -> Any:
        body = await world.services.stripe.read(f"/v1/invoices/{invoice}", lane=Lane.CUSTOMER)
        return {"status": body["status"]}

    cached: Any = await world.services.cache.fetch(resources.invoice(invoice).entry, load)
    return str(cached.value["status"])


async def test_cursor_moves_in_a_busy_account(world_without_webhooks: WebhookWorld) -> None:
    """With more than a page of events a minute, each poll reads the new events and a minute before them."""
    world = world_without_webhooks
    _, draft = await world.billed()
    await poll_events(world.services)
    cursors, reads = [await world.services.inbox.cursor()], []
    for _ in range(3):
        for _ in range(12):
            await edit_draft(world, draft["id"], 20)
            await world.sandbox.advance(5)
        await world.sandbox.reset_counters()
        await poll_events(world.services)
        cursors.append(await world.services.inbox.cursor())
        reads.append(await world.sandbox.calls("GET /v1/events"))

    assert len(set(cursors)) == len(cursors)
    assert cursors[-1] == (await ids_at_stripe(world, "*"))[0]
    assert max(reads) <= 9, reads  # 3 pages of new events, twice, and 3 pages before them


async def test_event_that_stripe_lists_late_is_ingested(
    world_without_webhooks: WebhookWorld,
) -> None:
    """Stripe may list an event behind newer ones of the same minute; the next poll finds it."""
    world = world_without_webhooks
    _, draft = await world.billed()
    await poll_events(world.services)
    await edit_draft(world, draft["id"], 3)
    behind, late, newest = (await ids_at_stripe(world, "invoice.updated"))[2::-1]
    await world.services.inbox.move_cursor(newest)
    assert await world.services.inbox.get(late) is None
    await poll_events(world.services)

    assert await world.services.inbox.get(late) is not None
    assert await world.services.inbox.get(behind) is not None
    assert await world.services.inbox.cursor() == newest


async def test_poll_reads_a_bounded_number_of_pages_and_the_next_continues(
    world_without_webhooks: WebhookWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job has ninety seconds and the account a ration of reads: a long backlog takes several polls."""
    monkeypatch.setattr("workers.poll_events.MAX_PAGES", 2)
    world = world_without_webhooks
    _, draft = await world.billed()
    await poll_events(world.services)
    await edit_draft(world, draft["id"], 450)
    seen = []
    for _ in range(3):
        await poll_events(world.services)
        seen.append(len(set(await ids_in_inbox(world)) & set(await _edits(world))))

    assert seen[0] < seen[1] < seen[2] == 450


async def _edits(world: WebhookWorld) -> list[str]:
    return (await ids_at_stripe(world, "invoice.updated"))[:450]


async def test_interrupted_poll_of_a_busy_minute_continues(
    world_without_webhooks: WebhookWorld,
) -> None:
    """Each page that was ingested moves the cursor, though all events are of the same minute."""
    world = world_without_webhooks
    _, draft = await world.billed()
    await poll_events(world.services)
    begun = await world.services.inbox.cursor()
    await edit_draft(world, draft["id"], 250)
    listings = "GET /v1/events"
    await world.sandbox.fault("error_500_before", listings, after=3)
    with pytest.raises(Unavailable):
        await poll_events(world.services)

    assert await world.services.inbox.cursor() != begun


async def test_every_event_is_ingested_once_over_several_pages(
    world_without_webhooks: WebhookWorld,
) -> None:
    """120 events are two pages; the next poll finds nothing new."""
    _, draft = await world_without_webhooks.billed()
    await poll_events(world_without_webhooks.services)
    before = await poll_events(world_without_webhooks.services)
    await edit_draft(world_without_webhooks, draft["id"], 120)

    assert await poll_events(world_without_webhooks.services) == 120
    assert await poll_events(world_without_webhooks.services) == 0
    assert len(await ids_in_inbox(world_without_webhooks)) == before + 120


async def test_undelivered_events_come_first(world: WebhookWorld) -> None:
    """They are the reason to poll and do not wait behind known events."""
    _, draft = await world.billed()
    await world.wait_delivered()
    await poll_events(world.services)
    await world.sandbox.fault("webhook_drop", "invoice.updated", after=5)
    await edit_draft(world, draft["id"], 10)
    await world.wait_delivered()
    before = await ids_in_inbox(world)
    [dropped] = set(await ids_at_stripe(world, "invoice.updated")) - set(before)
    await world.services.stripe.write(
        f"/v1/customers/{draft['customer']}", {"name": "Acme"}, key="rename", lane=Lane.SUPPORT
    )
    await world.sandbox.fault("error_500_before", "GET /v1/events", after=1)
    with pytest.raises(Unavailable):
        await poll_events(world.services)

    assert await ids_in_inbox(world) == [*before, dropped]


async def test_interrupted_poll_continues_where_it_stopped(
    world_without_webhooks: WebhookWorld,
) -> None:
    """Stripe failed after the first page: ingested events are not read again."""
    _, draft = await world_without_webhooks.billed()
    await poll_events(world_without_webhooks.services)
    begun = await world_without_webhooks.services.inbox.cursor()
    await edit_draft(world_without_webhooks, draft["id"], 50)
    await world_without_webhooks.sandbox.advance(3600)
    await edit_draft(world_without_webhooks, draft["id"], 60)
    await world_without_webhooks.sandbox.fault("error_500_before", "GET /v1/events", after=3)
    with pytest.raises(Unavailable):
        await poll_events(world_without_webhooks.services)

    assert await world_without_webhooks.services.inbox.cursor() != begun
    await poll_events(world_without_webhooks.services)
    edits = (await ids_at_stripe(world_without_webhooks, "invoice.updated"))[:110]
    assert set(edits) <= set(await ids_in_inbox(world_without_webhooks))


async def test_lost_cursor_ingests_everything_listed(world_without_webhooks: WebhookWorld) -> None:
    """Down for more than thirty days: all events that Stripe still lists are ingested."""
    _, draft = await world_without_webhooks.billed()
    await edit_draft(world_without_webhooks, draft["id"], 105)
    await world_without_webhooks.services.inbox.move_cursor("evt_forgotten")

    assert await poll_events(world_without_webhooks.services) >= 105
    assert (
        await world_without_webhooks.services.inbox.cursor()
        == (await ids_at_stripe(world_without_webhooks, "*"))[0]
    )
    assert await poll_events(world_without_webhooks.services) == 0


async def test_interrupted_reading_of_everything_continues(
    world_without_webhooks: WebhookWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After thirty days the list is longer than one poll: the next goes on below, and new events are not missed."""
    monkeypatch.setattr("workers.poll_events.MAX_OTHER_PAGES", 1)
    world = world_without_webhooks
    _, draft = await world.billed()
    await edit_draft(world, draft["id"], 250)
    await world.services.inbox.move_cursor("evt_forgotten")
    await poll_events(world.services)
    assert len(await ids_in_inbox(world)) <= 200
    await edit_draft(world, draft["id"], 10)
    for _ in range(4):
        await poll_events(world.services)

    everything = await ids_at_stripe(world, "invoice.updated")
    assert set(everything) <= set(await ids_in_inbox(world))
    assert await world.services.inbox.backlog() is None


async def test_event_types_without_effect_are_skipped(world_without_webhooks: WebhookWorld) -> None:
    """Stripe lists all types, whatever our endpoint selected."""
    await world_without_webhooks.shop.customer()
    await poll_events(world_without_webhooks.services)
    _, _ = await world_without_webhooks.billed("second")
    await poll_events(world_without_webhooks.services)

    assert await ids_at_stripe(world_without_webhooks, "invoiceitem.created")
    types = {event.type for event in (await world_without_webhooks.services.inbox.page(100)).items}
    assert "invoice.created" in types
    assert "invoiceitem.created" not in types


class _MalformedEvents:
    """A Stripe that lists a malformed event and a good one."""

    async def read(self, path: str, params: object, *, lane: Lane) -> dict[str, Any]:
        good = {"id": "evt_2", "type": "customer.updated", "data": {"object": {"id": "cus_1"}}}
        if path != "/v1/events":
            return good | {"id": path.rpartition("/")[2], "created": 0}
        malformed = {"id": "evt_1", "type": None, "data": None}
        listed = [event | {"created": 1} for event in (good, malformed)]
        return {"data": listed, "has_more": False}


async def test_malformed_event_does_not_stop_the_poll(services: Services) -> None:
    """It is logged; the other events are ingested."""
    await services.inbox.move_cursor("evt_0")

    assert await poll_events(replace(services, stripe=cast("StripeApi", _MalformedEvents()))) == 2
    assert await services.inbox.get("evt_2") is not None


async def test_operator_can_poll_by_command(world_without_webhooks: WebhookWorld) -> None:
    """After an outage nobody wants to wait for the cron."""
    customer, _ = await world_without_webhooks.billed()
    await world_without_webhooks.services.inbox.move_cursor("evt_forgotten")
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "workers.poll_events"),
        env=environment(world_without_webhooks.services.settings),
    )
    assert await command.wait() == 0

    events = (await world_without_webhooks.services.inbox.page(100)).items
    assert customer in {event.customer for event in events}


def test_worker_knows_the_job_that_support_enqueues(settings: Settings) -> None:
    """Arq drops a job whose name no worker knows."""
    worker: Any = worker_settings(settings)

    assert {job.name for job in worker.cron_jobs} >= {POLL_EVENTS_JOB}


async def test_poll_request_without_queue_is_an_error() -> None:
    """A requested poll must not be lost silently."""
    async with open_job_queue("redis://127.0.0.1:1") as wakeups:
        with pytest.raises(Unavailable):
            await wakeups.enqueue_poll()


async def test_support_can_replay_an_undelivered_event(
    world_without_webhooks: WebhookWorld,
) -> None:
    """Support sees an event in the Dashboard and has it processed now."""
    customer, draft = await world_without_webhooks.billed()
    await edit_draft(world_without_webhooks, draft["id"], 1)
    event = (await ids_at_stripe(world_without_webhooks, "invoice.updated"))[0]

    replayed = await replay(world_without_webhooks.services, event)
    assert replayed is not None
    assert replayed.status is EventStatus.PENDING
    await world_without_webhooks.process_events()
    assert not (await world_without_webhooks.ledger(customer)).up_to_date
    again = await replay(world_without_webhooks.services, event)
    assert again is not None
    assert again.status is EventStatus.PENDING


@pytest.mark.parametrize("mistyped", ["evt_none", "in_1", "", "evt_../customers", "evt_1?x=1"])
async def test_unknown_event_is_not_replayed(
    world_without_webhooks: WebhookWorld, mistyped: str
) -> None:
    """A mistyped id returns None and never becomes part of a path at Stripe."""
    assert await replay(world_without_webhooks.services, mistyped) is None
    assert await ids_in_inbox(world_without_webhooks) == []
