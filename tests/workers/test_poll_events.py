"""What was never delivered is found in Stripe's list of events, and taken in once."""

import asyncio
import sys
from dataclasses import replace
from typing import Any, cast

import pytest

from billing.budget import Lane
from billing.cache import entries
from billing.errors import Unavailable
from billing.event_ingestion import replay
from billing.events.events import EventStatus
from billing.invoicing.snapshot import PeriodState
from billing.job_queue import SWEEP, open_wakeups
from billing.services import Services
from billing.settings import Settings
from billing.stripe import StripeApi
from tests.support.system import environment
from tests.support.webhook_server import World
from workers.main import worker_settings
from workers.poll_events import sweep_events


async def edited(world: World, invoice: str, times: int) -> None:
    """A person edits a draft; each edit is an event."""
    for n in range(times):
        await world.sandbox.dashboard("update", invoice, description=f"edit {n}")


async def oldest_first(world: World) -> list[str]:
    """The ids in the inbox in the order of their arrival."""
    return [each.id for each in (await world.services.inbox.page(1000)).items][::-1]


async def at_stripe(world: World, kind: str) -> list[str]:
    """The ids of Stripe's events of one type, newest first."""
    found = await world.services.stripe.pages("/v1/events", {"type": kind}, lane=Lane.BACKGROUND)
    return [each["id"] for each in found]


async def test_the_first_sweep_takes_in_nothing(deaf: World) -> None:
    """A ledger that has just begun has no answer that could be older than Stripe's events."""
    await deaf.shop.customer()

    assert await sweep_events(deaf.services) == 0
    assert await oldest_first(deaf) == []
    assert await deaf.services.inbox.cursor() == (await at_stripe(deaf, "*"))[0]


async def test_an_account_without_events_is_no_error(deaf: World) -> None:
    """The sandbox is as empty as a new Stripe account."""
    await deaf.sandbox.reset()

    assert await sweep_events(deaf.services) == 0
    assert await deaf.services.inbox.cursor() is None


async def test_what_happened_during_downtime_is_found_and_acted_on(deaf: World) -> None:
    """The gateway was down while somebody finalized an invoice: the period ends all the same."""
    customer, draft = await deaf.billed()
    await sweep_events(deaf.services)
    assert await _status(deaf, draft["id"]) == "draft"
    await deaf.sandbox.dashboard("finalize", draft["id"])
    assert await _status(deaf, draft["id"]) == "draft"  # nobody has told us yet

    assert await sweep_events(deaf.services) > 0
    assert await _status(deaf, draft["id"]) != "draft"
    await deaf.worked()
    await deaf.flushed(customer)
    assert (await deaf.ledger(customer)).state is PeriodState.SEALED


async def _status(world: World, invoice: str) -> str:
    async def load() -> dict[str, str]:
        body = await world.services.stripe.read(f"/v1/invoices/{invoice}", lane=Lane.CUSTOMER)
        return {"status": body["status"]}

    status: str = (await world.services.cache.fetch(entries.invoice(invoice), load)).value["status"]
    return status


async def test_every_event_is_taken_in_once_however_many_pages(deaf: World) -> None:
    """120 events are two pages; the next sweep finds nothing new."""
    _, draft = await deaf.billed()
    await sweep_events(deaf.services)
    await edited(deaf, draft["id"], 120)

    assert await sweep_events(deaf.services) == 120
    assert await sweep_events(deaf.services) == 0
    assert len(await oldest_first(deaf)) == 120


async def test_undelivered_events_come_first(world: World) -> None:
    """What failed to arrive is why we sweep; it does not queue behind what we have had."""
    _, draft = await world.billed()
    await world.heard()
    await sweep_events(world.services)
    await world.sandbox.fault("webhook_drop", "invoice.updated", after=5)
    await edited(world, draft["id"], 10)
    await world.heard()
    before = await oldest_first(world)
    [dropped] = set(await at_stripe(world, "invoice.updated")) - set(before)
    await world.services.stripe.write(
        f"/v1/customers/{draft['customer']}", {"name": "Acme"}, key="rename", lane=Lane.SUPPORT
    )
    await world.sandbox.fault("error_500_before", "GET /v1/events", after=1)
    with pytest.raises(Unavailable):
        await sweep_events(world.services)

    assert await oldest_first(world) == [*before, dropped]


async def test_an_interrupted_sweep_goes_on_where_it_stopped(deaf: World) -> None:
    """Stripe went away after the first page: what was taken in is not read again."""
    _, draft = await deaf.billed()
    await sweep_events(deaf.services)
    begun = await deaf.services.inbox.cursor()
    await edited(deaf, draft["id"], 50)
    await deaf.sandbox.advance(3600)
    await edited(deaf, draft["id"], 60)
    await deaf.sandbox.fault("error_500_before", "GET /v1/events", after=2)
    with pytest.raises(Unavailable):
        await sweep_events(deaf.services)

    assert await deaf.services.inbox.cursor() != begun
    await sweep_events(deaf.services)
    assert len(await oldest_first(deaf)) == 110


async def test_a_cursor_that_stripe_has_forgotten_costs_a_full_walk(deaf: World) -> None:
    """Down for longer than thirty days: everything that Stripe still lists is taken in."""
    _, draft = await deaf.billed()
    await edited(deaf, draft["id"], 105)
    await deaf.services.inbox.move_cursor("evt_forgotten")

    assert await sweep_events(deaf.services) >= 105
    assert await deaf.services.inbox.cursor() == (await at_stripe(deaf, "*"))[0]
    assert await sweep_events(deaf.services) == 0


async def test_types_without_effect_are_left_at_stripe(deaf: World) -> None:
    """Stripe lists every type there is, whatever our endpoint selected."""
    await deaf.shop.customer()
    await sweep_events(deaf.services)
    _, _ = await deaf.billed("second")
    await sweep_events(deaf.services)

    assert await at_stripe(deaf, "invoiceitem.created")
    kept = {each.type for each in (await deaf.services.inbox.page(100)).items}
    assert "invoice.created" in kept
    assert "invoiceitem.created" not in kept


class _Odd:
    """A Stripe that lists an event in a shape of its own, and a good one."""

    async def read(self, path: str, params: object, *, lane: Lane) -> dict[str, Any]:
        assert path == "/v1/events"
        good = {"id": "evt_2", "type": "customer.updated", "data": {"object": {"id": "cus_1"}}}
        odd = {"id": "evt_1", "type": "customer.updated", "data": None}
        listed = [each | {"created": 1} for each in (good, odd)]
        return {"data": listed, "has_more": False}


async def test_an_event_in_an_unknown_shape_does_not_stop_the_sweep(services: Services) -> None:
    """What cannot be understood is logged by its flaw; the events around it are taken in."""
    await services.inbox.move_cursor("evt_0")

    assert await sweep_events(replace(services, stripe=cast("StripeApi", _Odd()))) == 1
    assert await services.inbox.get("evt_2") is not None


async def test_an_operator_can_sweep_now(deaf: World) -> None:
    """After an outage nobody wants to wait for the next turn of the cron."""
    customer, _ = await deaf.billed()
    await deaf.services.inbox.move_cursor("evt_forgotten")
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "workers.poll_events"), env=environment(deaf.services.settings)
    )
    assert await command.wait() == 0

    found = (await deaf.services.inbox.page(100)).items
    assert customer in {each.customer for each in found}


def test_a_worker_knows_the_job_that_support_asks_for(settings: Settings) -> None:
    """A job whose name no worker knows is thrown away by arq."""
    assert {each.name for each in worker_settings(settings).cron_jobs} >= {SWEEP}


async def test_without_the_queue_support_is_told_that_nobody_will_look() -> None:
    """A sweep that was asked for must not be forgotten in silence."""
    async with open_wakeups("redis://127.0.0.1:1") as wakeups:
        with pytest.raises(Unavailable):
            await wakeups.sweep()


async def test_support_can_replay_an_event_that_never_arrived(deaf: World) -> None:
    """Support sees an event in the Dashboard and asks us to act on it now."""
    customer, draft = await deaf.billed()
    await edited(deaf, draft["id"], 1)
    event = (await at_stripe(deaf, "invoice.updated"))[0]

    found = await replay(deaf.services, event)
    assert found is not None
    assert found.status is EventStatus.PENDING
    await deaf.worked()
    assert not (await deaf.ledger(customer)).up_to_date
    again = await replay(deaf.services, event)
    assert again is not None
    assert again.status is EventStatus.PENDING


@pytest.mark.parametrize("mistyped", ["evt_none", "in_1", "", "evt_../customers", "evt_1?x=1"])
async def test_an_event_that_nobody_knows_cannot_be_replayed(deaf: World, mistyped: str) -> None:
    """A mistyped id is answered with None, and never becomes part of a path at Stripe."""
    assert await replay(deaf.services, mistyped) is None
    assert await oldest_first(deaf) == []
