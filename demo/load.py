"""Load the usage sample: customers and prices into Stripe, usage through ``POST /usage``.

Loading is idempotent: existing customers and prices are found, and a delta's id counts once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import httpx
import orjson

from billing.budget import Lane
from billing.money import format_decimal
from billing.services import Services
from billing.usage import CustomerId, Period
from demo import focus_sample
from demo.home import get_or_store
from demo.tokens import token

BATCH = 500
POLL_SECONDS = 0.1
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The customers by sub-account, and the number of deltas that are in the ledger."""

    customers: dict[str, CustomerId]
    deltas: int

    @property
    def most_used(self) -> CustomerId:
        """The customer with the most rows of usage."""
        accounts = [delta.account for delta in _deltas()]
        return self.customers[max(self.customers, key=accounts.count)]


async def load(services: Services, gateway: str) -> LoadResult:
    """Load the sample into *gateway* (its base address) and print the progress."""
    print("Loading the demo: customers and prices into Stripe …", flush=True)
    customers, _ = await asyncio.gather(_create_customers(services), _create_prices(services))
    print("Loading the demo: 1,000 usage deltas through POST /usage …", flush=True)
    recorded = await _report_usage(gateway, customers)
    print("Waiting until the worker has compiled every customer's draft invoice …", flush=True)
    await _wait_until_synced(services, customers.values())
    return LoadResult(customers, recorded)


async def _create_customers(services: Services) -> dict[str, CustomerId]:
    listed = await services.stripe.list_all("/v1/customers", {}, lane=Lane.SUPPORT)
    existing = {row["metadata"].get("sub_account"): CustomerId(row["id"]) for row in listed}

    async def create(customer: focus_sample.SampleCustomer) -> None:
        params = {
            "name": customer.name,
            "email": f"billing@{customer.slug}.example",
            "metadata": {"organization": customer.slug, "sub_account": customer.account},
        }
        response = await services.stripe.write(
            "/v1/customers",
            params,
            key=f"demo:customer:{customer.slug}",
            lane=Lane.SUPPORT,
        )
        existing[customer.account] = CustomerId(response.body["id"])

    sample = focus_sample.customers()
    await _for_each([customer for customer in sample if customer.account not in existing], create)
    return {customer.account: existing[customer.account] for customer in sample}


async def _create_prices(services: Services) -> None:
    listed = await services.stripe.list_all("/v1/prices", {}, lane=Lane.SUPPORT)
    existing = {row["lookup_key"] for row in listed}

    async def create(price: focus_sample.SamplePrice) -> None:
        params = {
            "currency": "usd",
            "unit_amount_decimal": format_decimal(price.unit_amount),
            "lookup_key": price.sku,
            "product_data": {
                "name": price.name,
                "unit_label": price.unit[: focus_sample.UNIT_LABEL],
                "metadata": {"unit": price.unit},
            },
        }
        await services.stripe.write(
            "/v1/prices", params, key=f"demo:price:{price.sku}", lane=Lane.SUPPORT
        )

    missing = [price for price in focus_sample.prices() if price.sku not in existing]
    await _for_each(missing, create)


async def _report_usage(gateway: str, customers: dict[str, CustomerId]) -> int:
    lines = [orjson.dumps(_usage_line(delta, customers)) for delta in _deltas()]
    recorded = 0
    async with httpx.AsyncClient(base_url=gateway, timeout=60) as client:
        for start in range(0, len(lines), BATCH):
            response = await client.post(
                "/usage",
                content=b"\n".join(lines[start : start + BATCH]),
                headers={
                    "Authorization": f"Bearer {token('metering')}",
                    "Content-Type": "application/x-ndjson",
                },
            )
            report = response.raise_for_status().json()
            recorded += report["accepted"] + report["duplicates"]
            for rejection in report["rejected"]:
                print(f"Rejected {rejection['id']}: {rejection['error']['message']}")
    return recorded


def _deltas() -> list[focus_sample.SampleDelta]:
    """Return the sample scaled to the open period; its times are the same at every start within it."""
    now = datetime.now(UTC)
    period = Period.containing(now)
    anchor = datetime.fromisoformat(get_or_store(f"loaded_{period}", now.isoformat()))
    return focus_sample.deltas(period.start, max(anchor, period.start + timedelta(minutes=1)))


def _usage_line(
    delta: focus_sample.SampleDelta, customers: dict[str, CustomerId]
) -> dict[str, str | None]:
    return {
        "id": f"focus-{Period.containing(delta.moment)}-{delta.number:04}",
        "customerId": customers[delta.account],
        "sku": delta.sku,
        "quantity": format_decimal(delta.quantity),
        "occurredAt": delta.moment.isoformat(),
        "app": delta.app,
        "region": delta.region,
        "organization": delta.organization,
    }


async def _wait_until_synced(
    services: Services, customers: Iterable[CustomerId], seconds: float = 120
) -> None:
    """Wait until Stripe has all usage of *customers* (the worker may still verify it)."""
    waiting = list(customers)
    period = Period.containing(datetime.now(UTC))
    async with asyncio.timeout(seconds):
        while waiting:
            snapshots = await asyncio.gather(
                *(services.ledger.periods.snapshot(customer, period) for customer in waiting)
            )
            waiting = [snapshot.customer for snapshot in snapshots if not snapshot.is_synced]
            await asyncio.sleep(POLL_SECONDS)


async def _for_each(items: Sequence[T], action: Callable[[T], Awaitable[None]]) -> None:
    """Await *action* for every item, eight at a time; the Stripe budget limits the rate."""
    slots = asyncio.Semaphore(8)

    async def one(item: T) -> None:
        async with slots:
            await action(item)

    await asyncio.gather(*(one(item) for item in items))
