"""Processing of Stripe's events, with real deliveries, a real ledger and a real cache."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
import structlog
from redis.asyncio import Redis

from billing.budget import Lane
from billing.cache import open_cache
from billing.change_feed import ChangeReason
from billing.errors import StripeRejected
from billing.events import Inbox, InboxPolicy
from billing.events.effects import EventRef
from billing.events.records import EventStatus
from billing.invoicing.snapshot import PeriodState
from billing.ledger.keys import SHARDS
from billing.ledger.syncs import SyncFailure
from billing.pagination import PageRequest
from billing.stripe import resources
from billing.usage import CustomerId
from billing.usage_ingestion import record_usage
from tests.support.ledger import Proxy
from tests.support.stripe_catalog import delta
from tests.support.webhook_server import WebhookWorld, this_month
from workers.process_events import process_events


async def statuses(world: WebhookWorld, kind: str) -> list[EventStatus]:
    """Return the statuses of the events of one type."""
    events = (await world.services.inbox.page(100)).items
    return [event.status for event in events if event.type == kind]


async def test_invoice_finalized_in_dashboard_ends_its_period(world: WebhookWorld) -> None:
    """A person finalized it before our close; the flush seals the period."""
    customer, draft = await world.billed()
    await world.sandbox.dashboard("finalize", draft["id"])
    await world.wait_delivered()
    await world.flushed(customer)

    assert (await world.ledger(customer)).state is PeriodState.SEALED
    assert await statuses(world, "invoice.finalized") == [EventStatus.PROCESSED]


async def test_void_after_period_end_holds_the_customer(world: WebhookWorld) -> None:
    """A person decides if its usage is still owed; until then nothing is billed."""
    customer, draft = await world.billed(quantity="30000000")
    await world.sandbox.dashboard("finalize", draft["id"])
    await world.wait_delivered()
    await world.flushed(customer)
    assert (await world.ledger(customer)).state is PeriodState.SEALED
    await world.sandbox.dashboard("mark_uncollectible", draft["id"])
    await world.wait_delivered()
    assert await world.services.ledger.holds.get(customer) is None
    await world.sandbox.dashboard("void", draft["id"])
    await world.wait_delivered()

    hold = await world.services.ledger.holds.get(customer)
    assert hold is not None
    assert draft["id"] in hold.reason

    await world.services.ledger.holds.release(customer)
    events = (await world.services.inbox.page(100)).items
    [voided] = [event.id for event in events if event.type == "invoice.voided"]
    await world.services.inbox.requeue(voided)
    await world.process_events()
    assert await world.services.ledger.holds.get(customer) is None  # a person has decided


async def revised(world: WebhookWorld, invoice: str, *, finalized: bool = True) -> str:
    """Revise *invoice* as "Edit invoice" in the Dashboard does; return the revision's id."""
    params = {"from_invoice": {"action": "revision", "invoice": invoice}}
    write = world.services.stripe.write
    made = (await write("/v1/invoices", params, key=f"revise {invoice}", lane=Lane.SUPPORT)).body
    if finalized:
        await world.sandbox.dashboard("finalize", made["id"])
    return str(made["id"])


@pytest.mark.parametrize("copied", [True, False])
async def test_revised_bill_places_no_hold(world: WebhookWorld, copied: bool) -> None:
    """Stripe voids the original, but the revision bills its usage; only if that is voided a person decides."""
    customer, draft = await world.billed(quantity="30000000")
    await world.sandbox.dashboard("finalize", draft["id"])
    await world.wait_delivered()
    await world.flushed(customer)
    revision = await revised(world, draft["id"], finalized=False)
    if not copied:
        await world.sandbox.dashboard("update", revision, metadata={"gw_period": ""})
    await world.wait_delivered()
    await world.flushed(customer)
    await world.sandbox.dashboard("finalize", revision)
    await world.wait_delivered()
    body = await world.services.stripe.read(f"/v1/invoices/{draft['id']}", lane=Lane.SUPPORT)
    assert (body["status"], body["latest_revision"]) == ("void", revision)
    assert await world.services.ledger.holds.get(customer) is None

    await world.sandbox.dashboard("void", revision)
    await world.wait_delivered()
    hold = await world.services.ledger.holds.get(customer)
    assert hold is not None
    assert revision in hold.reason
    assert draft["id"] in hold.reason


async def test_edited_line_is_restored_by_the_next_flush(world: WebhookWorld) -> None:
    """A quantity changed in the Dashboard must not reach the customer's bill unnoticed."""
    customer, draft = await world.billed()
    line = draft["lines"]["data"][0]
    await world.sandbox.dashboard("edit_line", draft["id"], line=line["id"], quantity_decimal="7")
    await world.wait_delivered()
    assert not (await world.ledger(customer)).up_to_date
    await world.flushed(customer)

    assert (await world.draft(customer))["total"] == draft["total"]
    sync = await world.services.ledger.syncs.latest(customer)
    assert sync is not None
    assert sync.trigger == "WEBHOOK"


async def test_deleted_draft_is_created_again(world: WebhookWorld) -> None:
    """Deleting a draft in the Dashboard does not make usage free."""
    customer, draft = await world.billed()
    await world.sandbox.dashboard("delete", draft["id"])
    await world.wait_delivered()
    await world.flushed(customer)

    again = await world.draft(customer)
    assert again["id"] != draft["id"]
    assert again["total"] == draft["total"]


async def test_draft_with_our_period_is_adopted(world: WebhookWorld) -> None:
    """The ledger lost its creation; a second draft must not be made."""
    customer = CustomerId(await world.shop.customer())
    await world.services.stripe.write(
        "/v1/invoices",
        {"customer": customer, "metadata": {"gw_period": str(this_month())}},
        key="made before the ledger was restored",
        lane=Lane.CLOSE,
    )
    await record_usage(world.services, [delta(customer, "1000")])
    await world.wait_delivered()
    await world.flushed(customer)

    [draft] = await world.services.stripe.list_all(
        "/v1/invoices", {"customer": customer}, lane=Lane.CUSTOMER
    )
    assert draft["total"] == 3
    assert (await world.ledger(customer)).invoice == draft["id"]


@pytest.mark.parametrize(
    "actions",
    [
        ["finalize"],
        ["finalize", "pay"],
        ["finalize", "void"],
        ["finalize", "mark_uncollectible"],
        ["finalize", "mark_uncollectible", "pay"],
        ["update"],
        ["delete"],
    ],
    ids=" then ".join,
)
async def test_panel_shows_the_invoice_after_its_last_event(
    world: WebhookWorld, actions: list[str]
) -> None:
    """No panel shows an earlier state, whether a worker runs or not."""
    customer = await world.shop.customer()
    made = await world.services.stripe.write(
        "/v1/invoices",
        {"customer": customer, "collection_method": "send_invoice", "days_until_due": 30},
        key="by hand",
        lane=Lane.SUPPORT,
    )
    invoice = made.body["id"]
    await world.sandbox.dashboard("add_line", invoice, amount=5000, description="By hand")
    await world.sandbox.drain_webhooks()
    for action in actions:
        await _cached_invoice(world, invoice)
        changes = {"description": "changed"} if action == "update" else {}
        await world.sandbox.dashboard(action, invoice, **changes)
        await world.sandbox.drain_webhooks()

        assert await _cached_invoice(world, invoice) == await _read_invoice(world, invoice)


async def _cached_invoice(world: WebhookWorld, invoice: str) -> Any:
    cached = await world.services.cache.fetch(
        resources.invoice(invoice).entry, lambda: _read_invoice(world, invoice)
    )
    return cached.value


async def _read_invoice(world: WebhookWorld, invoice: str) -> Any:
    try:
        body = await world.services.stripe.read(f"/v1/invoices/{invoice}", lane=Lane.CUSTOMER)
    except StripeRejected:
        return None
    return [body["status"], body["description"], body["amount_paid"], body["amount_remaining"]]


async def test_events_of_our_own_writes_are_ignored(world: WebhookWorld) -> None:
    """Every flush makes Stripe send events; acting on them would cause another flush."""
    customer, _ = await world.billed()
    await world.wait_delivered()

    assert set(await statuses(world, "invoice.created")) == {EventStatus.IGNORED}
    assert set(await statuses(world, "invoice.updated")) == {EventStatus.IGNORED}
    assert (await world.ledger(customer)).up_to_date
    assert await world.services.ledger.due.time_ms(customer, this_month()) is None


async def test_burst_of_fifty_events_costs_one_verify(world: WebhookWorld) -> None:
    """A person's script edits a draft fifty times; Stripe's reads are limited."""
    customer, draft = await world.billed()
    for n in range(50):
        await world.sandbox.dashboard("update", draft["id"], description=f"edit {n}")
    await world.sandbox.reset_counters()
    await world.wait_delivered()
    await world.flushed(customer)

    assert (await statuses(world, "invoice.updated")).count(EventStatus.PROCESSED) == 50
    reads = (await world.sandbox.counters())["reads"]
    assert 1 <= reads <= 2  # the invoice, and the list that shows whether it is the only one


async def test_foreign_invoice_is_left_alone(world: WebhookWorld) -> None:
    """Fly also sends invoices by hand; they are shown, and have nothing to do with metering."""
    customer, _ = await world.billed()
    await world.services.stripe.write(
        "/v1/invoices", {"customer": customer}, key="by hand", lane=Lane.SUPPORT
    )
    [before] = await world.services.cache.generations(customer)
    await world.wait_delivered()

    assert EventStatus.PROCESSED in await statuses(world, "invoice.created")
    assert (await world.ledger(customer)).up_to_date
    assert [before] != list(await world.services.cache.generations(customer))


async def test_subscribers_receive_changes(world: WebhookWorld) -> None:
    """An open panel shows the payment without a reload."""
    customer, draft = await world.billed()
    await world.wait_delivered()  # the creation of the customer would be published first
    async with world.services.change_feed.subscribe(customer) as changes:
        await world.sandbox.dashboard("update", draft["id"], description="by hand")
        await world.wait_delivered()
        change = await asyncio.wait_for(anext(aiter(changes)), 5)

    assert (change.reason, change.invoice) == (ChangeReason.WEBHOOK, draft["id"])


async def test_customer_edit_wakes_parked_period(world: WebhookWorld) -> None:
    """Editing the customer may cure the reason; Support should not have to press a button."""
    customer, _ = await world.billed()
    leased = await world.services.ledger.leases.acquire(customer, this_month())
    assert leased is not None
    await world.services.ledger.leases.park(
        leased.lease, SyncFailure("card", "The card was declined.")
    )
    await world.services.stripe.write(
        f"/v1/customers/{customer}", {"name": "Acme Inc"}, key="rename", lane=Lane.SUPPORT
    )
    assert (await world.ledger(customer)).parked_reason
    await world.wait_delivered()

    assert (await world.ledger(customer)).parked_reason is None


async def test_price_edit_wakes_parked_periods(world: WebhookWorld) -> None:
    """An archived price parks all its customers; the person who restores it knows none of them."""
    stripe, ledger = world.services.stripe, world.services.ledger
    customer, _ = await world.billed()
    leased = await ledger.leases.acquire(customer, this_month())
    assert leased is not None
    await ledger.leases.park(leased.lease, SyncFailure("price_inactive", "The price is archived."))
    [price] = (await world.services.price_catalog.by_sku(["machine-seconds"])).values()
    await stripe.write(
        f"/v1/prices/{price.id}", {"nickname": "Restored"}, key="cure", lane=Lane.SUPPORT
    )
    await world.wait_delivered()

    assert (await world.ledger(customer)).parked_reason is None


async def test_detached_card_is_invalidated(world: WebhookWorld) -> None:
    """The panel must not offer a deleted card."""
    stripe = world.services.stripe
    customer = await world.shop.customer()
    attached = await stripe.write(
        "/v1/payment_methods/pm_card_visa/attach",
        {"customer": customer},
        key="attach",
        lane=Lane.CUSTOMER,
    )
    card = attached.body["id"]

    async def cards() -> list[str]:
        async def load() -> Any:
            path = f"/v1/customers/{customer}/payment_methods"
            return await stripe.list_all(path, lane=Lane.CUSTOMER)

        entry = resources.payment_methods(customer, PageRequest(10)).entry
        cached: Any = await world.services.cache.fetch(entry, load)
        return [card["id"] for card in cached.value]

    await world.wait_delivered()
    assert await cards() == [card]
    await stripe.write(f"/v1/payment_methods/{card}/detach", {}, key="detach", lane=Lane.CUSTOMER)
    await world.wait_delivered()

    assert await cards() == []


async def test_owner_is_read_if_the_event_does_not_name_it(
    world_without_webhooks: WebhookWorld,
) -> None:
    """An event of another API version leads to a read, never to a guess."""
    customer, draft = await world_without_webhooks.billed()
    [before] = await world_without_webhooks.services.cache.generations(customer)
    await world_without_webhooks.services.inbox.receive(
        [EventRef("evt_old", "invoice.updated", draft["id"], None, draft["id"])]
    )
    await world_without_webhooks.process_events()

    assert not (await world_without_webhooks.ledger(customer)).up_to_date
    assert [before] != list(await world_without_webhooks.services.cache.generations(customer))


async def test_thin_event_takes_its_owner_from_a_full_one(
    world_without_webhooks: WebhookWorld,
) -> None:
    """Two endpoints send two shapes: the void counts in either."""
    customer, draft = await world_without_webhooks.billed(quantity="30000000")
    await world_without_webhooks.sandbox.dashboard("finalize", draft["id"])
    whole = EventRef(
        "evt_whole", "invoice.updated", draft["id"], customer, draft["id"], this_month()
    )
    await world_without_webhooks.services.inbox.receive([whole])
    await world_without_webhooks.process_events()
    await world_without_webhooks.flushed(customer)
    assert (await world_without_webhooks.ledger(customer)).state is PeriodState.SEALED
    await world_without_webhooks.sandbox.dashboard("void", draft["id"])
    await world_without_webhooks.services.inbox.receive(
        [
            replace(whole, id="evt_again"),
            EventRef("evt_thin", "invoice.voided", draft["id"], None, draft["id"]),
        ]
    )
    await world_without_webhooks.process_events()

    assert await world_without_webhooks.services.ledger.holds.get(customer) is not None


async def test_owner_of_thin_credit_note_event_is_read(
    world_without_webhooks: WebhookWorld,
) -> None:
    """The invoice that it credits and the customer have changed too."""
    customer, draft = await world_without_webhooks.billed(quantity="30000000")
    await world_without_webhooks.sandbox.dashboard("finalize", draft["id"])
    note = await world_without_webhooks.services.stripe.write(
        "/v1/credit_notes", {"invoice": draft["id"], "amount": 1}, key="note", lane=Lane.SUPPORT
    )
    before = await world_without_webhooks.services.cache.generations(customer, draft["id"])
    await world_without_webhooks.services.inbox.receive(
        [EventRef("evt_thin", "credit_note.created", note.body["id"])]
    )
    await world_without_webhooks.process_events()

    after = await world_without_webhooks.services.cache.generations(customer, draft["id"])
    assert not set(before) & set(after)


async def test_price_event_reaches_every_subscriber(world_without_webhooks: WebhookWorld) -> None:
    """A price applies to all customers who use it."""
    customer = await world_without_webhooks.shop.customer()
    async with world_without_webhooks.services.change_feed.subscribe(customer) as changes:
        await world_without_webhooks.services.inbox.receive(
            [EventRef("evt_1", "price.updated", "price_1")]
        )
        await world_without_webhooks.process_events()
        change = await asyncio.wait_for(anext(aiter(changes)), 5)

    assert (change.customer, change.reason) == (customer, ChangeReason.WEBHOOK)


async def test_event_of_deleted_object_is_processed(world_without_webhooks: WebhookWorld) -> None:
    """The invoice was deleted before its owner could be read."""
    await world_without_webhooks.services.inbox.receive(
        [EventRef("evt_old", "invoice.updated", "in_gone", None, "in_gone")]
    )
    await world_without_webhooks.process_events()

    assert await statuses(world_without_webhooks, "invoice.updated") == [EventStatus.PROCESSED]


async def test_events_wait_while_stripe_is_unavailable(
    world_without_webhooks: WebhookWorld,
) -> None:
    """An outage costs no attempt; the event is processed as soon as it is over."""
    _, draft = await world_without_webhooks.billed()
    await world_without_webhooks.services.inbox.receive(
        [EventRef("evt_old", "invoice.updated", draft["id"], None, draft["id"])]
    )
    await world_without_webhooks.sandbox.fault(
        "error_500_before", "GET /v1/invoices/{invoice}", times=1
    )
    await process_events(world_without_webhooks.services, 10)
    waiting = await world_without_webhooks.services.inbox.get("evt_old")
    assert waiting is not None
    assert waiting.status is EventStatus.PENDING
    assert waiting.failure is not None

    await world_without_webhooks.services.inbox.requeue("evt_old")
    await world_without_webhooks.process_events()

    assert await statuses(world_without_webhooks, "invoice.updated") == [EventStatus.PROCESSED]


async def test_events_wait_while_the_cache_is_unavailable(
    world_without_webhooks: WebhookWorld,
) -> None:
    """Without the invalidation an event is not processed; it costs no attempt."""
    event = EventRef("evt_1", "customer.updated", "cus_1", CustomerId("cus_1"))
    await world_without_webhooks.services.inbox.receive([event])
    async with open_cache("redis://127.0.0.1:1") as nowhere:
        await process_events(replace(world_without_webhooks.services, cache=nowhere), 10)
    waiting = await world_without_webhooks.services.inbox.get("evt_1")
    assert waiting is not None
    assert (waiting.status, waiting.failure) == (
        EventStatus.PENDING,
        "The cache's server cannot be reached; try again.",
    )

    await world_without_webhooks.services.inbox.requeue("evt_1")
    await world_without_webhooks.process_events()

    assert await statuses(world_without_webhooks, "customer.updated") == [EventStatus.PROCESSED]


async def test_slow_stripe_delays_events_without_failure(
    world_without_webhooks: WebhookWorld, redis: Redis
) -> None:
    """A worker that exceeds the claim of an event would look like one that died of it."""
    _, draft = await world_without_webhooks.billed()
    hasty = InboxPolicy(visibility_ms=250)
    services = replace(world_without_webhooks.services, inbox=Inbox(redis, hasty))
    await services.inbox.receive(
        [EventRef("evt_thin", "invoice.updated", draft["id"], None, draft["id"])]
    )
    await world_without_webhooks.sandbox.fault(
        "slow", "GET /v1/invoices/{invoice}", times=100, seconds=2
    )
    async with asyncio.TaskGroup() as working:
        for _ in range(2 * hasty.max_attempts):
            working.create_task(process_events(services, 10))
            await asyncio.sleep(0.3)
    waiting = await services.inbox.get("evt_thin")
    assert waiting is not None
    assert waiting.status is EventStatus.PENDING
    assert waiting.failure == "What it needs takes too long; try again."

    await world_without_webhooks.sandbox.clear_faults()
    await world_without_webhooks.services.inbox.requeue("evt_thin")
    await world_without_webhooks.process_events()

    assert await statuses(world_without_webhooks, "invoice.updated") == [EventStatus.PROCESSED]


async def test_catalog_is_invalidated_before_periods_are_woken(
    world_without_webhooks: WebhookWorld,
) -> None:
    """A woken flush uses the catalog at once; with the old one it would be parked again."""
    customer, _ = await world_without_webhooks.billed()
    leased = await world_without_webhooks.services.ledger.leases.acquire(customer, this_month())
    assert leased is not None
    await world_without_webhooks.services.ledger.leases.park(
        leased.lease, SyncFailure("price_inactive", "It is archived.")
    )
    await world_without_webhooks.services.inbox.receive(
        [EventRef("evt_price", "price.updated", "price_1")]
    )
    async with open_cache("redis://127.0.0.1:1") as nowhere:
        await process_events(replace(world_without_webhooks.services, cache=nowhere), 10)
    assert (await world_without_webhooks.ledger(customer)).parked_reason

    await world_without_webhooks.services.inbox.requeue("evt_price")
    await world_without_webhooks.process_events()

    assert (await world_without_webhooks.ledger(customer)).parked_reason is None


async def test_invalidating_and_completing_a_hundred_objects_takes_one_round_trip_each(
    world_without_webhooks: WebhookWorld, redis: Redis
) -> None:
    """In a flood a worker must not saturate the server."""
    events = [EventRef(f"evt_{n}", "invoice.sent", f"in_{n}", None, f"in_{n}") for n in range(100)]
    owned = [replace(event, customer=CustomerId(f"cus_{event.id}")) for event in events]
    await world_without_webhooks.services.inbox.receive(owned)
    await redis.config_resetstat()

    assert await process_events(world_without_webhooks.services, 100) == 100
    calls = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
    assert calls <= 6  # claim, two to forget, settle, trim, and perhaps one that was not loaded yet


async def test_hundred_price_events_wake_parked_periods_once(
    world_without_webhooks: WebhookWorld, redis: Redis
) -> None:
    """Every shard is queried for parked periods; a new import of the catalog is one cure."""
    await world_without_webhooks.services.inbox.receive(
        [EventRef(f"evt_{n}", "price.updated", f"price_{n}") for n in range(100)]
    )
    await redis.config_resetstat()

    assert await process_events(world_without_webhooks.services, 100) == 100
    spent = await redis.info("commandstats")
    assert spent["cmdstat_zcard"]["calls"] <= SHARDS + 3  # three are the trim's
    assert spent["cmdstat_evalsha"]["calls"] <= 6


async def _broken_list(customer: CustomerId) -> list[Any]:
    """Fail for one customer, as a bug of ours would."""
    if customer == "cus_poison":
        raise KeyError("secret payload")
    return []


async def test_poisoned_event_fails_alone(world_without_webhooks: WebhookWorld) -> None:
    """Its failure is recorded only as the type of the error."""
    broken: Any = Proxy(None, periods=Proxy(None, list_retained=_broken_list))
    services = replace(world_without_webhooks.services, ledger=broken)
    poison, healthy = (
        EventRef(f"evt_{name}", "customer.updated", f"cus_{name}", CustomerId(f"cus_{name}"))
        for name in ("poison", "healthy")
    )
    await services.inbox.receive([poison, healthy])
    with structlog.testing.capture_logs() as logs:
        await process_events(services, 10)

    done, parked = [await services.inbox.get(event.id) for event in (healthy, poison)]
    assert done is not None
    assert parked is not None
    assert done.status is EventStatus.PROCESSED
    assert (parked.status, parked.failure) == (EventStatus.PENDING, "KeyError")
    assert [entry["subject"] for entry in logs] == ["cus_poison"]
    assert "secret" not in repr(logs)


async def test_workers_share_the_inbox_without_duplication(world: WebhookWorld) -> None:
    """Any number of workers may run; one of them has an object at a time."""
    for n in range(20):
        await world.shop.customer(f"c{n}")
    assert (await world.sandbox.drain_webhooks())["settled"]
    counted = await asyncio.gather(*(process_events(world.services, 30) for _ in range(4)))

    created = [event for event in (await world.services.inbox.page(100)).items if event.object_id]
    processed = [event for event in created if event.status is EventStatus.PROCESSED]
    assert sum(counted) == len(processed)
    assert {event.attempts for event in processed} == {1}


@pytest.mark.parametrize("kind", ["webhook_duplicate", "webhook_forge", "old_api_version"])
async def test_delivery_faults_change_nothing(world: WebhookWorld, kind: str) -> None:
    """Duplicated, forged or in another version: the period is sealed all the same."""
    customer, draft = await world.billed()
    await world.sandbox.fault(kind, "*", times=100)
    await world.sandbox.dashboard("finalize", draft["id"])
    await world.wait_delivered()
    await world.sandbox.clear_faults()
    await world.flushed(customer)

    assert (await world.ledger(customer)).state is PeriodState.SEALED
    ids = [event.id for event in (await world.services.inbox.page(100)).items]
    assert not any("forged" in event_id for event_id in ids)
    assert set((await world.sandbox.webhooks())["forged_answers"]) <= {400}
