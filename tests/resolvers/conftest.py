"""The schema over real services: who asks is given, a worker's steps are taken when a test says so."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any, cast

import pytest
import strawberry
from strawberry.types import ExecutionResult

from billing.budget import Lane
from billing.ledger.keys import SHARDS
from billing.services import Services
from billing.usage import CustomerId, Period
from billing.usage_ingestion import record_usage
from resolvers.context import Context, Role, Viewer
from schema.build import build_schema
from tests.support.polling import until
from tests.support.stripe_catalog import Shop, delta
from workers.flush.flush import flush
from workers.flush.outcome import Ending
from workers.main import flush_ports

SUPPORT = Viewer("agent@fly.example", Role.SUPPORT)
METERING = Viewer("metering", Role.METERING)
SOMEBODY_ELSE = Viewer("panel", Role.CUSTOMER, frozenset({"cus_else"}))


def panel_of(*customers: str) -> Viewer:
    """The panel with a token that names *customers*."""
    return Viewer("panel", Role.CUSTOMER, frozenset(customers))


@dataclass
class Desk:
    """Ask the schema, on services that a test can reach behind."""

    services: Services
    shop: Shop
    schema: strawberry.Schema
    lane: Lane = Lane.CUSTOMER
    numbers: Iterator[int] = field(default_factory=count)

    async def run(self, viewer: Viewer, document: str, **variables: Any) -> ExecutionResult:
        """Execute *document* for *viewer*, with fresh loaders as each request has."""
        context = Context.of(viewer, self.services)
        result = await self.schema.execute(document, variables, context_value=context)
        assert isinstance(result, ExecutionResult)
        return result

    async def ask(self, viewer: Viewer, document: str, **variables: Any) -> dict[str, Any]:
        """The data of *document*; any error fails the test."""
        result = await self.run(viewer, document, **variables)
        assert result.errors is None, result.errors
        assert result.data is not None
        return result.data

    async def refused(self, viewer: Viewer, document: str, **variables: Any) -> list[Any]:
        """The codes of the GraphQL errors of *document*."""
        result = await self.run(viewer, document, **variables)
        assert result.errors, "nothing was refused"
        return [(each.extensions or {}).get("code") for each in result.errors]

    async def follow(
        self, viewer: Viewer, document: str, **variables: Any
    ) -> AsyncGenerator[ExecutionResult, None]:
        """The results of a subscription, one an event; a refusal is the only one."""
        context = Context.of(viewer, self.services)
        source = await self.schema.subscribe(document, variables, context_value=context)
        if isinstance(source, ExecutionResult):
            return _only(source)
        return cast("AsyncGenerator[ExecutionResult, None]", source)

    async def use(self, customer: str, quantity: str = "1", **changed: str) -> None:
        """Record one delta."""
        report = await record_usage(self.services, [delta(customer, quantity, **changed)])
        assert report.accepted == 1, report

    async def card(self, customer: str) -> str:
        """Attach one of Stripe's test cards to *customer*, as its default; the card's id."""
        attach = "/v1/payment_methods/pm_card_visa/attach"
        card = (await self.write(attach, {"customer": customer}, next(self.numbers)))["id"]
        default = {"invoice_settings": {"default_payment_method": card}}
        await self.write(f"/v1/customers/{customer}", default, next(self.numbers))
        return str(card)

    async def invoice(self, customer: str, cents: int) -> str:
        """A draft that somebody makes by hand, with one line; its id."""
        number = next(self.numbers)
        draft = await self.write("/v1/invoices", {"customer": customer}, number)
        params = {"lines": [{"amount": cents, "description": "by hand"}]}
        await self.write(f"/v1/invoices/{draft['id']}/add_lines", params, number)
        return str(draft["id"])

    async def finalize(self, invoice: str) -> None:
        """Finalize *invoice* as somebody in the Dashboard does."""
        await self.write(f"/v1/invoices/{invoice}/finalize", {}, 0)

    async def write(self, path: str, params: dict[str, Any], number: int) -> dict[str, Any]:
        """Write to Stripe, under a key made of *path* and *number*."""
        answer = await self.services.stripe.write(
            path, params, key=f"{path} {number}", lane=self.lane
        )
        return answer.body

    async def flush(self, customer: str, period: Period | None = None) -> Ending:
        """Do what a worker does when it is woken for *customer*; the current month unless told."""
        owner = CustomerId(customer)
        period = period or await self.services.ledger.open_period(owner)
        return await flush(owner, period, flush_ports(self.services), lane=self.lane)

    async def listening(self, customer: str) -> None:
        """Wait until somebody follows *customer*."""

        async def followers() -> bool:
            count = await self.services.changes._redis.pubsub_numsub(f"changes:{customer}")
            return bool(count[0][1])

        await until(followers, wanted=True)

    @staticmethod
    def now() -> str:
        """This moment, as metering writes it."""
        return datetime.now(UTC).isoformat()

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """A worker that looks at what is due, for as long as the block lasts."""
        over = asyncio.Event()
        task = asyncio.create_task(self._work(over))
        try:
            yield
        finally:
            over.set()
            await task

    async def _work(self, over: asyncio.Event) -> None:
        while not over.is_set():
            for shard in range(SHARDS):
                for customer, period in await self.services.ledger.claim(shard, 10, 30_000):
                    await flush(customer, period, flush_ports(self.services), lane=self.lane)
            await asyncio.sleep(0.02)


async def _only(result: ExecutionResult) -> AsyncGenerator[ExecutionResult, None]:
    yield result


@pytest.fixture(scope="session")
def schema() -> strawberry.Schema:
    """The schema as the gateway serves it."""
    return build_schema()


@pytest.fixture
async def desk(services: Services, schema: strawberry.Schema) -> Desk:
    """A desk at a shop with three prices."""
    shop = Shop(services)
    await shop.open()
    return Desk(services, shop, schema)
