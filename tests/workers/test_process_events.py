"""What a worker does about Stripe's events: real deliveries, a real ledger, a real cache."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
import structlog
from redis.asyncio import Redis

from billing.budget import Lane
from billing.cache import entries, open_cache
from billing.change_feed import ChangeReason
from billing.errors import StripeRejected
from billing.events import Inbox, InboxPolicy
from billing.events.effects import Notice
from billing.events.events import EventStatus
from billing.invoicing.snapshot import PeriodState
from billing.ledger import Ledger
from billing.ledger.keys import SHARDS
from billing.ledger.syncs import SyncFailure
from billing.pagination import Window
from billing.usage import CustomerId
from billing.usage_ingestion import record_usage
from tests.support.stripe_catalog import delta
from tests.support.webhook_server import World, this_month
from workers.process_events import process_inbox


async def statuses(world: World, kind: str) -> list[EventStatus]:
    """Where the events of one type stand."""
    found = (await world.services.inbox.page(100)).items
    return [each.status for each in found if each.type == kind]


async def test_an_invoice_finalized_in_the_dashboard_ends_its_period(world: World) -> None:
    """Somebody at Stripe was faster than our close; the ledger sees it and seals."""
    customer, draft = await world.billed()
    await world.sandbox.dashboard("finalize", draft["id"])
    await world.heard()
    await world.flushed(customer)

    assert (await world.ledger(customer)).state is PeriodState.SEALED
    assert await statuses(world, "invoice.finalized") == [EventStatus.PROCESSED]


async def test_an_invoice_voided_after_its_period_ended_holds_the_customer(world: World) -> None:
    """Whether its usage is still owed is a person's decision; until then nothing more is billed."""
    customer, draft = await world.billed(quantity="30000000")
    await world.sandbox.dashboard("finalize", draft["id"])
    await world.heard()
    await world.flushed(customer)
    assert (await world.ledger(customer)).state is PeriodState.SEALED
    await world.sandbox.dashboard("mark_uncollectible", draft["id"])
    await world.heard()
    assert await world.services.ledger.held(customer) is None
    await world.sandbox.dashboard("void", draft["id"])
    await world.heard()

    held = await world.services.ledger.held(customer)
    assert held is not None
    assert draft["id"] in held.reason

    await world.services.ledger.release_hold(customer)
    events = (await world.services.inbox.page(100)).items
    [voided] = [each.id for each in events if each.type == "invoice.voided"]
    await world.services.inbox.requeue(voided)
    await world.worked()
    assert await world.services.ledger.held(customer) is None  # a person has decided


async def test_an_edited_line_is_put_right_at_the_next_flush(world: World) -> None:
    """A quantity changed in the Dashboard must not reach the customer's bill unnoticed."""
    customer, draft = await world.billed()
    line = draft["lines"]["data"][0]
    await world.sandbox.dashboard("edit_line", draft["id"], line=line["id"], quantity_decimal="7")
    await world.heard()
    assert not (await world.ledger(customer)).up_to_date
    await world.flushed(customer)

    assert (await world.draft(customer))["total"] == draft["total"]
    sync = await world.services.syncs.of(customer)
    assert sync is not None
    assert sync.trigger == "WEBHOOK"


async def test_a_deleted_draft_is_made_anew(world: World) -> None:
    """Deleting a draft in the Dashboard does not make usage free."""
    customer, draft = await world.billed()
    await world.sandbox.dashboard("delete", draft["id"])
    await world.heard()
    await world.flushed(customer)

    again = await world.draft(customer)
    assert again["id"] != draft["id"]
    assert again["total"] == draft["total"]


async def test_a_draft_that_bears_our_period_is_claimed(world: World) -> None:
    """A draft whose creation the ledger has forgotten is taken over instead of a second one being made."""
    customer = CustomerId(await world.shop.customer())
    await world.services.stripe.write(
        "/v1/invoices",
        {"customer": customer, "metadata": {"gw_period": str(this_month())}},
        key="made before the ledger was restored",
        lane=Lane.CLOSE,
    )
    await record_usage(world.services, [delta(customer, "1000")])
    await world.heard()
    await world.flushed(customer)

    [draft] = await world.services.stripe.pages(
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
async def test_whatever_happens_to_an_invoice_is_what_a_panel_shows(
    world: World, actions: list[str]
) -> None:
    """After Stripe's last word about an invoice nobody is shown an earlier state, worker or no worker."""
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
        await _shown(world, invoice)
        changes = {"description": "changed"} if action == "update" else {}
        await world.sandbox.dashboard(action, invoice, **changes)
        await world.sandbox.drain_webhooks()

        assert await _shown(world, invoice) == await _read(world, invoice)


async def _shown(world: World, invoice: str) -> Any:
    found = await world.services.cache.fetch(
        entries.invoice(invoice), lambda: _read(world, invoice)
    )
    return found.value


async def _read(world: World, invoice: str) -> Any:
    try:
        body = await world.services.stripe.read(f"/v1/invoices/{invoice}", lane=Lane.CUSTOMER)
    except StripeRejected:
        return None
    return [body["status"], body["description"], body["amount_paid"], body["amount_remaining"]]


async def test_echoes_of_our_own_writes_cause_nothing(world: World) -> None:
    """Every flush makes Stripe send events; acting on them would make every flush cause another."""
    customer, _ = await world.billed()
    await world.heard()

    assert set(await statuses(world, "invoice.created")) == {EventStatus.IGNORED}
    assert set(await statuses(world, "invoice.updated")) == {EventStatus.IGNORED}
    assert (await world.ledger(customer)).up_to_date
    assert await world.services.ledger.due_ms(customer, this_month()) is None


async def test_a_burst_of_fifty_events_costs_one_look(world: World) -> None:
    """A script of somebody's edits a draft fifty times; Stripe's reads are rationed."""
    customer, draft = await world.billed()
    for n in range(50):
        await world.sandbox.dashboard("update", draft["id"], description=f"edit {n}")
    await world.sandbox.reset_counters()
    await world.heard()
    await world.flushed(customer)

    assert (await statuses(world, "invoice.updated")).count(EventStatus.PROCESSED) == 50
    reads = (await world.sandbox.counters())["reads"]
    assert 1 <= reads <= 2  # the invoice, and the list that shows whether it is the only one


async def test_an_invoice_that_is_not_ours_is_left_alone(world: World) -> None:
    """Fly also sends invoices by hand; they are shown, and have nothing to do with metering."""
    customer, _ = await world.billed()
    await world.services.stripe.write(
        "/v1/invoices", {"customer": customer}, key="by hand", lane=Lane.SUPPORT
    )
    [before] = await world.services.cache.generations(customer)
    await world.heard()

    assert EventStatus.PROCESSED in await statuses(world, "invoice.created")
    assert (await world.ledger(customer)).up_to_date
    assert [before] != list(await world.services.cache.generations(customer))


async def test_subscribers_hear_of_every_effect(world: World) -> None:
    """A panel that is open shows the payment without being reloaded."""
    customer, draft = await world.billed()
    await world.heard()  # of the customer, which would be told first
    async with world.services.changes.subscribe(customer) as changes:
        await world.sandbox.dashboard("update", draft["id"], description="by hand")
        await world.heard()
        change = await asyncio.wait_for(anext(aiter(changes)), 5)

    assert (change.reason, change.invoice) == (ChangeReason.WEBHOOK, draft["id"])


async def test_an_edit_of_the_customer_wakes_what_was_parked(world: World) -> None:
    """What parks a customer is cured at the customer; nobody should have to press a button then."""
    customer, _ = await world.billed()
    held = await world.services.ledger.acquire(customer, this_month())
    assert held is not None
    await world.services.ledger.park(held.lease, SyncFailure("card", "The card was declined."))
    await world.services.stripe.write(
        f"/v1/customers/{customer}", {"name": "Acme Inc"}, key="rename", lane=Lane.SUPPORT
    )
    assert (await world.ledger(customer)).stuck
    await world.heard()

    assert (await world.ledger(customer)).stuck is None


async def test_a_cured_price_wakes_what_was_parked(world: World) -> None:
    """An archived price parks everybody who uses it; whoever restores it knows none of them."""
    stripe, ledger = world.services.stripe, world.services.ledger
    customer, _ = await world.billed()
    held = await ledger.acquire(customer, this_month())
    assert held is not None
    await ledger.park(held.lease, SyncFailure("price_inactive", "The price is archived."))
    [price] = (await world.services.catalogue.by_sku(["machine-seconds"])).values()
    await stripe.write(
        f"/v1/prices/{price.id}", {"nickname": "Restored"}, key="cure", lane=Lane.SUPPORT
    )
    await world.heard()

    assert (await world.ledger(customer)).stuck is None


async def test_a_detached_card_is_forgotten(world: World) -> None:
    """The panel must not go on offering a card that is gone."""
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
            return await stripe.pages(path, lane=Lane.CUSTOMER)

        entry = entries.payment_methods(customer, Window(10))
        return [each["id"] for each in (await world.services.cache.fetch(entry, load)).value]

    await world.heard()
    assert await cards() == [card]
    await stripe.write(f"/v1/payment_methods/{card}/detach", {}, key="detach", lane=Lane.CUSTOMER)
    await world.heard()

    assert await cards() == []


async def test_whose_an_invoice_is_is_read_when_the_event_does_not_say(deaf: World) -> None:
    """An event in the shape of another API version is answered by reading, never by guessing."""
    customer, draft = await deaf.billed()
    [before] = await deaf.services.cache.generations(customer)
    await deaf.services.inbox.receive(
        [Notice("evt_old", "invoice.updated", draft["id"], None, draft["id"])]
    )
    await deaf.worked()

    assert not (await deaf.ledger(customer)).up_to_date
    assert [before] != list(await deaf.services.cache.generations(customer))


async def test_a_thin_event_learns_whose_it_is_from_a_whole_one_beside_it(deaf: World) -> None:
    """Two endpoints, two shapes: the void counts, whichever of the two spoke of it."""
    customer, draft = await deaf.billed(quantity="30000000")
    await deaf.sandbox.dashboard("finalize", draft["id"])
    whole = Notice("evt_whole", "invoice.updated", draft["id"], customer, draft["id"], this_month())
    await deaf.services.inbox.receive([whole])
    await deaf.worked()
    await deaf.flushed(customer)
    assert (await deaf.ledger(customer)).state is PeriodState.SEALED
    await deaf.services.inbox.receive(
        [
            replace(whole, id="evt_again"),
            Notice("evt_thin", "invoice.voided", draft["id"], None, draft["id"]),
        ]
    )
    await deaf.worked()

    assert await deaf.services.ledger.held(customer) is not None


async def test_whose_a_credit_note_is_is_read_when_a_thin_event_names_no_more(deaf: World) -> None:
    """The invoice that it corrects, and its customer, have changed as well."""
    customer, draft = await deaf.billed(quantity="30000000")
    await deaf.sandbox.dashboard("finalize", draft["id"])
    note = await deaf.services.stripe.write(
        "/v1/credit_notes", {"invoice": draft["id"], "amount": 1}, key="note", lane=Lane.SUPPORT
    )
    before = await deaf.services.cache.generations(customer, draft["id"])
    await deaf.services.inbox.receive([Notice("evt_thin", "credit_note.created", note.body["id"])])
    await deaf.worked()

    after = await deaf.services.cache.generations(customer, draft["id"])
    assert not set(before) & set(after)


async def test_everybody_who_looks_hears_of_a_price(deaf: World) -> None:
    """A price is shown to every customer whose usage it counts."""
    customer = await deaf.shop.customer()
    async with deaf.services.changes.subscribe(customer) as changes:
        await deaf.services.inbox.receive([Notice("evt_1", "price.updated", "price_1")])
        await deaf.worked()
        change = await asyncio.wait_for(anext(aiter(changes)), 5)

    assert (change.customer, change.reason) == (customer, ChangeReason.WEBHOOK)


async def test_an_event_about_something_gone_is_done_with(deaf: World) -> None:
    """The invoice was deleted before anybody could ask whose it was."""
    await deaf.services.inbox.receive(
        [Notice("evt_old", "invoice.updated", "in_gone", None, "in_gone")]
    )
    await deaf.worked()

    assert await statuses(deaf, "invoice.updated") == [EventStatus.PROCESSED]


async def test_events_wait_while_stripe_is_away(deaf: World) -> None:
    """An outage is nobody's fault; the event is worked on as soon as it is over."""
    _, draft = await deaf.billed()
    await deaf.services.inbox.receive(
        [Notice("evt_old", "invoice.updated", draft["id"], None, draft["id"])]
    )
    await deaf.sandbox.fault("error_500_before", "GET /v1/invoices/{invoice}", times=1)
    await process_inbox(deaf.services, 10)
    waiting = await deaf.services.inbox.get("evt_old")
    assert waiting is not None
    assert waiting.status is EventStatus.PENDING
    assert waiting.failure is not None

    await deaf.services.inbox.requeue("evt_old")
    await deaf.worked()

    assert await statuses(deaf, "invoice.updated") == [EventStatus.PROCESSED]


async def test_events_wait_while_the_cache_is_away(deaf: World) -> None:
    """What could not be forgotten is not done; it costs the events none of their attempts."""
    notice = Notice("evt_1", "customer.updated", "cus_1", CustomerId("cus_1"))
    await deaf.services.inbox.receive([notice])
    async with open_cache("redis://127.0.0.1:1") as nowhere:
        await process_inbox(replace(deaf.services, cache=nowhere), 10)
    waiting = await deaf.services.inbox.get("evt_1")
    assert waiting is not None
    assert (waiting.status, waiting.failure) == (
        EventStatus.PENDING,
        "The cache's server cannot be reached; ask again.",
    )

    await deaf.services.inbox.requeue("evt_1")
    await deaf.worked()

    assert await statuses(deaf, "customer.updated") == [EventStatus.PROCESSED]


async def test_what_stripe_answers_slowly_waits_and_does_not_fail(
    deaf: World, redis: Redis
) -> None:
    """A worker that holds on to an event for longer than it is hidden looks like one that died of it."""
    _, draft = await deaf.billed()
    hasty = InboxPolicy(visibility_ms=250)
    services = replace(deaf.services, inbox=Inbox(redis, hasty))
    await services.inbox.receive(
        [Notice("evt_thin", "invoice.updated", draft["id"], None, draft["id"])]
    )
    await deaf.sandbox.fault("slow", "GET /v1/invoices/{invoice}", times=100, seconds=2)
    async with asyncio.TaskGroup() as working:
        for _ in range(2 * hasty.max_strikes):
            working.create_task(process_inbox(services, 10))
            await asyncio.sleep(0.3)
    waiting = await services.inbox.get("evt_thin")
    assert waiting is not None
    assert waiting.status is EventStatus.PENDING
    assert waiting.failure == "What it needs takes too long; ask again."

    await deaf.sandbox.no_faults()
    await deaf.services.inbox.requeue("evt_thin")
    await deaf.worked()

    assert await statuses(deaf, "invoice.updated") == [EventStatus.PROCESSED]


async def test_nobody_is_woken_before_the_catalogue_is_forgotten(deaf: World) -> None:
    """Whoever is woken bills by the catalogue at once; with the old one it would be parked again."""
    customer, _ = await deaf.billed()
    held = await deaf.services.ledger.acquire(customer, this_month())
    assert held is not None
    await deaf.services.ledger.park(held.lease, SyncFailure("price_inactive", "It is archived."))
    await deaf.services.inbox.receive([Notice("evt_price", "price.updated", "price_1")])
    async with open_cache("redis://127.0.0.1:1") as nowhere:
        await process_inbox(replace(deaf.services, cache=nowhere), 10)
    assert (await deaf.ledger(customer)).stuck

    await deaf.services.inbox.requeue("evt_price")
    await deaf.worked()

    assert (await deaf.ledger(customer)).stuck is None


async def test_forgetting_and_settling_a_hundred_objects_costs_a_round_trip_each(
    deaf: World, redis: Redis
) -> None:
    """Under a flood a worker must not take the machine for itself."""
    notices = [Notice(f"evt_{n}", "invoice.sent", f"in_{n}", None, f"in_{n}") for n in range(100)]
    owned = [replace(each, customer=CustomerId(f"cus_{each.id}")) for each in notices]
    await deaf.services.inbox.receive(owned)
    await redis.config_resetstat()

    assert await process_inbox(deaf.services, 100) == 100
    calls = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
    assert calls <= 6  # claim, two to forget, settle, trim, and perhaps one that was not loaded yet


async def test_a_hundred_prices_wake_the_parked_once(deaf: World, redis: Redis) -> None:
    """Every shard of the ledger is asked for its parked; a catalogue that is imported anew is one cure."""
    await deaf.services.inbox.receive(
        [Notice(f"evt_{n}", "price.updated", f"price_{n}") for n in range(100)]
    )
    await redis.config_resetstat()

    assert await process_inbox(deaf.services, 100) == 100
    spent = await redis.info("commandstats")
    assert spent["cmdstat_zcard"]["calls"] <= SHARDS + 3  # three are the trim's
    assert spent["cmdstat_evalsha"]["calls"] <= 6


class _Broken(Ledger):
    """A ledger that breaks over one customer, as a bug of ours would."""

    async def periods(self, customer: CustomerId) -> list[Any]:
        if customer == "cus_poison":
            raise KeyError("secret payload")
        return []


async def test_a_poisoned_event_is_parked_and_the_others_go_on(deaf: World) -> None:
    """One event that breaks our code fails alone, and says no more than what kind of error it was."""
    services = replace(deaf.services, ledger=object.__new__(_Broken))
    poison, healthy = (
        Notice(f"evt_{name}", "customer.updated", f"cus_{name}", CustomerId(f"cus_{name}"))
        for name in ("poison", "healthy")
    )
    await services.inbox.receive([poison, healthy])
    with structlog.testing.capture_logs() as logs:
        await process_inbox(services, 10)

    done, parked = [await services.inbox.get(each.id) for each in (healthy, poison)]
    assert done is not None
    assert parked is not None
    assert done.status is EventStatus.PROCESSED
    assert (parked.status, parked.failure) == (EventStatus.PENDING, "KeyError")
    assert [each["subject"] for each in logs] == ["cus_poison"]
    assert "secret" not in repr(logs)


async def test_two_workers_share_the_inbox_without_doubling(world: World) -> None:
    """Any number of workers may run; an object is with one of them at a time."""
    for n in range(20):
        await world.shop.customer(f"c{n}")
    assert (await world.sandbox.drain_webhooks())["settled"]
    counted = await asyncio.gather(*(process_inbox(world.services, 30) for _ in range(4)))

    created = [each for each in (await world.services.inbox.page(100)).items if each.object_id]
    assert sum(counted) == len([each for each in created if each.status is EventStatus.PROCESSED])
    assert {each.attempts for each in created if each.status is EventStatus.PROCESSED} == {1}


@pytest.mark.parametrize("kind", ["webhook_duplicate", "webhook_forge", "old_api_version"])
async def test_accidents_of_delivery_change_nothing(world: World, kind: str) -> None:
    """Doubled, accompanied by forgeries or in another version: the period is sealed all the same."""
    customer, draft = await world.billed()
    await world.sandbox.fault(kind, "*", times=100)
    await world.sandbox.dashboard("finalize", draft["id"])
    await world.heard()
    await world.sandbox.no_faults()
    await world.flushed(customer)

    assert (await world.ledger(customer)).state is PeriodState.SEALED
    kept = [each.id for each in (await world.services.inbox.page(100)).items]
    assert not any("forged" in each for each in kept)
    assert set((await world.sandbox.webhooks())["forged_answers"]) <= {400}
