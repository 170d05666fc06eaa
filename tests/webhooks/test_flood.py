"""The laws of a flood, in small; ``make bench ONLY=webhooks`` sends a million through real processes."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from pydantic import SecretStr

from benchmarks.flood.sending import SECRET, SHARES, Stage, Target, deliver
from benchmarks.flood.shop import People, open_shop
from billing.budget import Lane
from billing.cache import entries
from billing.events.events import EventStatus
from billing.services import Services, open_services
from billing.settings import Settings
from tests.support.stripe_sandbox import StripeSandbox
from tests.support.system import until
from tests.support.webhook_server import hearing
from workers.process_events import process_inbox

EVENTS = 300
CUSTOMERS = 6
MIX = SHARES | {"forged": 0.1, "garbage": 0.05}


@pytest.fixture
async def processes(settings: Settings, services: Services) -> AsyncIterator[list[Services]]:
    """What two gateways and two workers would have: one ledger, one cache server, else nothing in common."""
    known = settings.model_copy(update={"stripe_webhook_secrets": (SecretStr(SECRET),)})
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(open_services(known)) for _ in range(4)]


async def test_after_a_flood_nothing_is_forged_nothing_lost_and_panels_show_what_stripe_has(
    processes: list[Services], sandbox: StripeSandbox
) -> None:
    """Doubled, shuffled, forged and broken events arrive on both gateways while people edit and look."""
    gateways, workers = processes[:2], processes[2:]
    bodies = await open_shop(gateways[0], CUSTOMERS)
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(hearing(each)) for each in gateways]
        http = await stack.enter_async_context(httpx.AsyncClient())
        people = People(gateways[0], sandbox, bodies, [_base(url) for url in urls], http)
        targets = [Target(urlsplit(url).port or 0, os.getpid()) for url in urls]
        over = asyncio.Event()
        working = [asyncio.create_task(_work(each, over)) for each in workers]
        sent, _ = await asyncio.gather(
            deliver(Stage(0, EVENTS, 8, shares=MIX), targets, bodies),
            _edit_and_look(people, gateways),
        )
        over.set()
        await asyncio.gather(*working)
        await people.change_everybody()

        # From the last answer on, although no worker has moved.
        truth = [await _at_stripe(gateways[0], *pair) for pair in bodies]
        shown = [[await _panel(each, *pair) for pair in bodies] for each in gateways]
        await until(lambda: _through(workers[0]), "the worker is through")

    assert shown == [truth, truth]
    assert sent.run.failures == sent.bad > EVENTS // 20
    kept = {each.id: each.status for each in (await gateways[0].inbox.page(10 * EVENTS)).items}
    assert not [name for name in kept if "forged" in name]
    assert {f"evt_flood{number}" for number in range(EVENTS)} <= kept.keys()
    assert set(kept.values()) == {EventStatus.PROCESSED, EventStatus.IGNORED}


def _base(url: str) -> str:
    return f"http://{urlsplit(url).netloc}"


async def _work(services: Services, over: asyncio.Event) -> None:
    while not over.is_set():
        await process_inbox(services, 5)
        await asyncio.sleep(0.02)


async def _edit_and_look(people: People, gateways: list[Services]) -> None:
    """Whoever looks right before each edit fills the caches with what will be old."""
    for number in range(2 * CUSTOMERS):
        place = number % CUSTOMERS
        for each in gateways:
            await _panel(each, *people.bodies[place])
        await people.change(place)


async def _panel(services: Services, customer: dict[str, Any], invoice: dict[str, Any]) -> Any:
    """Name and total, as the cache has them."""

    async def read(path: str) -> dict[str, Any]:
        return await services.stripe.read(path, lane=Lane.CUSTOMER)

    of_customer = await services.cache.fetch(
        entries.customer(customer["id"]), lambda: read(f"/v1/customers/{customer['id']}")
    )
    of_invoice = await services.cache.fetch(
        entries.invoice(invoice["id"]), lambda: read(f"/v1/invoices/{invoice['id']}")
    )
    return of_customer.value["name"], of_invoice.value["total"]


async def _at_stripe(services: Services, customer: dict[str, Any], invoice: dict[str, Any]) -> Any:
    shown = await services.stripe.read(f"/v1/customers/{customer['id']}", lane=Lane.CUSTOMER)
    billed = await services.stripe.read(f"/v1/invoices/{invoice['id']}", lane=Lane.CUSTOMER)
    return shown["name"], billed["total"]


async def _through(services: Services) -> bool:
    await process_inbox(services, 100)
    return not (await services.inbox.page(1, status=EventStatus.PENDING)).items
