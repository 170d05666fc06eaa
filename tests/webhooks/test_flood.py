"""The guarantees under a flood, in small; ``make bench ONLY=webhooks`` sends a million through real processes."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from pydantic import SecretStr

from benchmarks.flood.sender import SECRET, SHARES, Stage, Target, deliver
from benchmarks.flood.stripe_account import People, open_shop
from billing.budget import Lane
from billing.events.records import EventStatus
from billing.services import Services, open_services
from billing.settings import Settings
from billing.stripe import resources
from tests.support.stripe_sandbox import StripeSandbox
from tests.support.wait import wait_until
from tests.support.webhook_server import webhook_server
from workers.process_events import process_events

EVENTS = 300
CUSTOMERS = 6
MIX = SHARES | {"forged": 0.1, "garbage": 0.05}


@pytest.fixture
async def processes(settings: Settings, services: Services) -> AsyncIterator[list[Services]]:
    """The services of two gateways and two workers: one ledger and one cache server in common."""
    known = settings.model_copy(update={"stripe_webhook_secrets": (SecretStr(SECRET),)})
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(open_services(known)) for _ in range(4)]


async def test_flood_loses_nothing_stores_no_forgery_and_leaves_panels_current(
    processes: list[Services], sandbox: StripeSandbox
) -> None:
    """Duplicate, reordered, forged and broken events arrive on both gateways during edits and reads."""
    gateways, workers = processes[:2], processes[2:]
    bodies = await open_shop(gateways[0], CUSTOMERS)
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(webhook_server(gateway)) for gateway in gateways]
        http = await stack.enter_async_context(httpx.AsyncClient())
        people = People(gateways[0], sandbox, bodies, [_base(url) for url in urls], http)
        targets = [Target(urlsplit(url).port or 0, os.getpid()) for url in urls]
        over = asyncio.Event()
        working = [asyncio.create_task(_work(worker, over)) for worker in workers]
        sent, _ = await asyncio.gather(
            deliver(Stage(0, EVENTS, 8, shares=MIX), targets, bodies),
            _edit_and_read(people, gateways),
        )
        over.set()
        await asyncio.gather(*working)
        await people.change_everybody()

        # As of the last response, before any worker has run.
        truth = [await _at_stripe(gateways[0], *pair) for pair in bodies]
        shown = [[await _panel(gateway, *pair) for pair in bodies] for gateway in gateways]
        await wait_until(lambda: _through(workers[0]), "the worker is through")

    assert shown == [truth, truth]
    assert sent.run.failures == sent.bad > EVENTS // 20
    events = (await gateways[0].inbox.page(10 * EVENTS)).items
    stored = {event.id: event.status for event in events}
    assert not [name for name in stored if "forged" in name]
    assert {f"evt_flood{number}" for number in range(EVENTS)} <= stored.keys()
    assert set(stored.values()) == {EventStatus.PROCESSED, EventStatus.IGNORED}


def _base(url: str) -> str:
    return f"http://{urlsplit(url).netloc}"


async def _work(services: Services, over: asyncio.Event) -> None:
    while not over.is_set():
        await process_events(services, 5)
        await asyncio.sleep(0.02)


async def _edit_and_read(people: People, gateways: list[Services]) -> None:
    """Reads right before each edit fill the caches with the old state."""
    for number in range(2 * CUSTOMERS):
        place = number % CUSTOMERS
        for gateway in gateways:
            await _panel(gateway, *people.bodies[place])
        await people.change(place)


async def _panel(services: Services, customer: dict[str, Any], invoice: dict[str, Any]) -> Any:
    """Name and total, from the cache."""

    async def read(path: str) -> dict[str, Any]:
        return await services.stripe.read(path, lane=Lane.CUSTOMER)

    of_customer = await services.cache.fetch(
        resources.customer(customer["id"]).entry, lambda: read(f"/v1/customers/{customer['id']}")
    )
    of_invoice = await services.cache.fetch(
        resources.invoice(invoice["id"]).entry, lambda: read(f"/v1/invoices/{invoice['id']}")
    )
    return of_customer.value["name"], of_invoice.value["total"]


async def _at_stripe(services: Services, customer: dict[str, Any], invoice: dict[str, Any]) -> Any:
    shown = await services.stripe.read(f"/v1/customers/{customer['id']}", lane=Lane.CUSTOMER)
    billed = await services.stripe.read(f"/v1/invoices/{invoice['id']}", lane=Lane.CUSTOMER)
    return shown["name"], billed["total"]


async def _through(services: Services) -> bool:
    await process_events(services, 100)
    return not (await services.inbox.page(1, status=EventStatus.PENDING)).items
