"""The webhook door on a port, and the sandbox delivering to it: for tests of what follows from events."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import uvicorn
from starlette.applications import Starlette

from billing.budget import Lane
from billing.invoicing.snapshot import Snapshot
from billing.services import Services
from billing.usage import CustomerId, Period
from billing.usage_ingestion import record_usage
from tests.support.stripe_catalog import Shop, delta
from tests.support.stripe_sandbox import StripeSandbox
from tests.support.wait import wait_until
from webhooks.endpoint import BODY_TIMEOUT_SECONDS, PATH, webhook_route
from workers.flush.flush import flush
from workers.flush.policy import FlushContext
from workers.process_events import process_events


class _Server(uvicorn.Server):
    """Leaves the signals to pytest."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def webhook_server(
    services: Services, read_seconds: float = BODY_TIMEOUT_SECONDS
) -> AsyncIterator[str]:
    """The door over *services*; its URL."""
    app = Starlette(routes=[webhook_route(read_seconds)])
    app.state.services = services
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = _Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        running = asyncio.create_task(server.serve([listener]))

        async def started() -> bool:
            return server.started

        await wait_until(started, "the door is open")
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}{PATH}"
        finally:
            server.should_exit = True
            await running


@dataclass
class WebhookWorld:
    """The parts that an event passes through, driven step by step."""

    services: Services
    sandbox: StripeSandbox
    shop: Shop

    async def wait_delivered(self) -> None:
        """Every event that Stripe has to tell was delivered and worked on."""
        report = await self.sandbox.drain_webhooks()
        assert report["settled"]
        await self.process_events()

    async def process_events(self) -> None:
        """Everything in the inbox that is due was worked on."""
        while await process_events(self.services, 100):
            pass

    async def billed(
        self, slug: str = "acme", quantity: str = "1000"
    ) -> tuple[CustomerId, dict[str, Any]]:
        """A new customer with some usage, told to Stripe: the customer and the draft."""
        customer = CustomerId(await self.shop.customer(slug))
        report = await record_usage(self.services, [delta(customer, quantity)])
        assert report.accepted == 1
        await self.flushed(customer)
        return customer, await self.draft(customer)

    async def flushed(self, customer: CustomerId) -> None:
        """The worker's part, as often as it takes."""
        for _ in range(5):
            await flush(
                customer,
                this_month(),
                FlushContext.from_services(self.services),
                lane=Lane.CUSTOMER,
            )

    async def draft(self, customer: CustomerId) -> dict[str, Any]:
        """The customer's newest invoice at Stripe."""
        page = await self.services.stripe.read(
            "/v1/invoices", {"customer": customer, "limit": 1}, lane=Lane.CUSTOMER
        )
        invoice: dict[str, Any] = page["data"][0]
        return invoice

    async def ledger(self, customer: CustomerId) -> Snapshot:
        """This month in the ledger."""
        return await self.services.ledger.periods.snapshot(customer, this_month())


async def due(world: WebhookWorld, customers: int) -> list[CustomerId]:
    """As many customers with thirty dollars of usage that is due now."""
    found = []
    for _ in range(customers):
        customer = CustomerId(await world.shop.customer())
        await record_usage(world.services, [delta(customer, "1500", "egress-gb")])
        period = await world.services.ledger.periods.current(customer)
        await world.services.ledger.due.wake(customer, period)
        found.append(customer)
    return found


def this_month() -> Period:
    """The period that usage of now falls in."""
    return Period.containing(datetime.now(UTC))
