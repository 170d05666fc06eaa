"""An in-process API harness over real services; worker steps run when a test requests them."""

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
from tests.support.stripe_catalog import Shop, delta
from tests.support.wait import wait_for_value
from workers.flush.flush import flush
from workers.flush.outcome import FlushResult
from workers.flush.policy import FlushContext

SUPPORT = Viewer("agent@fly.example", Role.SUPPORT)
METERING = Viewer("metering", Role.METERING)
OTHER_CUSTOMER = Viewer("panel", Role.CUSTOMER, frozenset({"cus_else"}))


def panel_viewer(*customers: str) -> Viewer:
    """A viewer of the panel whose token names *customers*."""
    return Viewer("panel", Role.CUSTOMER, frozenset(customers))


@dataclass
class ApiHarness:
    """Executes operations on the schema, and gives tests access to the services behind it."""

    services: Services
    shop: Shop
    schema: strawberry.Schema
    lane: Lane = Lane.CUSTOMER
    key_numbers: Iterator[int] = field(default_factory=count)

    async def execute(self, viewer: Viewer, document: str, **variables: Any) -> ExecutionResult:
        """Execute *document* for *viewer* with a context of its own, as each request has."""
        context = Context.for_viewer(viewer, self.services)
        result = await self.schema.execute(document, variables, context_value=context)
        assert isinstance(result, ExecutionResult)
        return result

    async def query(self, viewer: Viewer, document: str, **variables: Any) -> dict[str, Any]:
        """The data of *document*; any error fails the test."""
        result = await self.execute(viewer, document, **variables)
        assert result.errors is None, result.errors
        assert result.data is not None
        return result.data

    async def error_codes(self, viewer: Viewer, document: str, **variables: Any) -> list[Any]:
        """The error codes of *document*; success fails the test."""
        result = await self.execute(viewer, document, **variables)
        assert result.errors, "nothing was refused"
        return [(error.extensions or {}).get("code") for error in result.errors]

    async def subscribe(
        self, viewer: Viewer, document: str, **variables: Any
    ) -> AsyncGenerator[ExecutionResult, None]:
        """The results of a subscription, one for each event; a refusal is the only result."""
        context = Context.for_viewer(viewer, self.services)
        source = await self.schema.subscribe(document, variables, context_value=context)
        if isinstance(source, ExecutionResult):
            return _single_result(source)
        return cast("AsyncGenerator[ExecutionResult, None]", source)

    async def record_usage(self, customer: str, quantity: str = "1", **changed: str) -> None:
        """Record one delta."""
        report = await record_usage(self.services, [delta(customer, quantity, **changed)])
        assert report.accepted == 1, report

    async def attach_card(self, customer: str) -> str:
        """Attach a test card of Stripe's to *customer* as its default payment method; returns its id."""
        attach = "/v1/payment_methods/pm_card_visa/attach"
        card = (await self.write_stripe(attach, {"customer": customer}, next(self.key_numbers)))[
            "id"
        ]
        default = {"invoice_settings": {"default_payment_method": card}}
        await self.write_stripe(f"/v1/customers/{customer}", default, next(self.key_numbers))
        return str(card)

    async def create_invoice(self, customer: str, cents: int) -> str:
        """Create a draft invoice by hand, with one line; returns its id."""
        number = next(self.key_numbers)
        draft = await self.write_stripe("/v1/invoices", {"customer": customer}, number)
        params = {"lines": [{"amount": cents, "description": "by hand"}]}
        await self.write_stripe(f"/v1/invoices/{draft['id']}/add_lines", params, number)
        return str(draft["id"])

    async def finalize_invoice(self, invoice: str) -> None:
        """Finalize *invoice* outside the gateway, as in Stripe's Dashboard."""
        await self.write_stripe(f"/v1/invoices/{invoice}/finalize", {}, 0)

    async def write_stripe(self, path: str, params: dict[str, Any], number: int) -> dict[str, Any]:
        """Write to Stripe with an idempotency key made of *path* and *number*."""
        answer = await self.services.stripe.write(
            path, params, key=f"{path} {number}", lane=self.lane
        )
        return answer.body

    async def flush(self, customer: str, period: Period | None = None) -> FlushResult:
        """Flush *customer*'s *period* (default: the current month) as a worker does."""
        owner = CustomerId(customer)
        period = period or await self.services.ledger.periods.current(owner)
        return await flush(owner, period, FlushContext.from_services(self.services), lane=self.lane)

    async def wait_for_subscriber(self, customer: str) -> None:
        """Wait until a subscriber follows *customer*."""

        async def followers() -> bool:
            count = await self.services.change_feed._redis.pubsub_numsub(f"changes:{customer}")
            return bool(count[0][1])

        await wait_for_value(followers, expected=True)

    @staticmethod
    def now() -> str:
        """The current time in the format of usage reports."""
        return datetime.now(UTC).isoformat()

    @asynccontextmanager
    async def running_worker(self) -> AsyncIterator[None]:
        """Run a worker that flushes due periods for the duration of the block."""
        over = asyncio.Event()
        task = asyncio.create_task(self._run_worker(over))
        try:
            yield
        finally:
            over.set()
            await task

    async def _run_worker(self, over: asyncio.Event) -> None:
        while not over.is_set():
            for shard in range(SHARDS):
                for customer, period in await self.services.ledger.due.claim(shard, 10, 30_000):
                    await flush(
                        customer, period, FlushContext.from_services(self.services), lane=self.lane
                    )
            await asyncio.sleep(0.02)


async def _single_result(result: ExecutionResult) -> AsyncGenerator[ExecutionResult, None]:
    yield result


@pytest.fixture(scope="session")
def schema() -> strawberry.Schema:
    """The schema as the gateway serves it."""
    return build_schema()


@pytest.fixture
async def api(services: Services, schema: strawberry.Schema) -> ApiHarness:
    """An API harness with three prices in Stripe."""
    shop = Shop(services)
    await shop.open()
    return ApiHarness(services, shop, schema)
