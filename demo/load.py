"""Put the usage sample in: customers and prices into Stripe, usage through the gateway's public door.

Everything here may be repeated: what exists is found, and a delta's id counts once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import httpx
import orjson

from billing.budget import Lane
from billing.money import plain
from billing.services import Services
from billing.usage import CustomerId, Period
from demo import focus_sample
from demo.home import remembered
from demo.tokens import token

BATCH = 500
POLL_SECONDS = 0.1
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is there now: the customers by sub-account, and how many deltas were counted or known."""

    customers: dict[str, CustomerId]
    deltas: int

    @property
    def most_used(self) -> CustomerId:
        """The customer with the most rows of usage: the one worth looking at."""
        rows = [delta.account for delta in _deltas()]
        return self.customers[max(self.customers, key=rows.count)]


async def load(services: Services, gateway: str) -> Loaded:
    """Load the sample into *gateway* (its base address); prints what it does."""
    print("Loading the demo: customers and prices into Stripe …", flush=True)
    customers, _ = await asyncio.gather(_customers(services), _prices(services))
    print("Loading the demo: 1,000 usage deltas through POST /usage …", flush=True)
    counted = await _send(gateway, customers)
    print("Waiting until the worker has compiled every customer's draft invoice …", flush=True)
    await _compiled(services, customers.values())
    return Loaded(customers, counted)


async def _customers(services: Services) -> dict[str, CustomerId]:
    listed = await services.stripe.pages("/v1/customers", {}, lane=Lane.SUPPORT)
    there = {each["metadata"].get("sub_account"): CustomerId(each["id"]) for each in listed}

    async def create(customer: focus_sample.SampleCustomer) -> None:
        params = {
            "name": customer.name,
            "email": f"billing@{customer.slug}.example",
            "metadata": {"organization": customer.slug, "sub_account": customer.account},
        }
        answer = await services.stripe.write(
            "/v1/customers",
            params,
            key=f"demo:customer:{customer.slug}",
            lane=Lane.SUPPORT,
        )
        there[customer.account] = CustomerId(answer.body["id"])

    missing = [each for each in focus_sample.customers() if each.account not in there]
    await _all(missing, create)
    return {each.account: there[each.account] for each in focus_sample.customers()}


async def _prices(services: Services) -> None:
    listed = await services.stripe.pages("/v1/prices", {}, lane=Lane.SUPPORT)
    there = {each["lookup_key"] for each in listed}

    async def create(price: focus_sample.SamplePrice) -> None:
        params = {
            "currency": "usd",
            "unit_amount_decimal": plain(price.unit_amount),
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

    await _all([each for each in focus_sample.prices() if each.sku not in there], create)


async def _send(gateway: str, customers: dict[str, CustomerId]) -> int:
    lines = [orjson.dumps(_line(delta, customers)) for delta in _deltas()]
    counted = 0
    async with httpx.AsyncClient(base_url=gateway, timeout=60) as client:
        for start in range(0, len(lines), BATCH):
            answer = await client.post(
                "/usage",
                content=b"\n".join(lines[start : start + BATCH]),
                headers={
                    "Authorization": f"Bearer {token('metering')}",
                    "Content-Type": "application/x-ndjson",
                },
            )
            report = answer.raise_for_status().json()
            counted += report["accepted"] + report["duplicates"]
            for refused in report["rejected"]:
                print(f"Refused {refused['id']}: {refused['error']['message']}")
    return counted


def _deltas() -> list[focus_sample.SampleDelta]:
    """The sample laid into the open period; the same times at every start within that period."""
    now = datetime.now(UTC)
    period = Period.containing(now)
    anchor = datetime.fromisoformat(remembered(f"loaded_{period}", now.isoformat()))
    return focus_sample.deltas(period.start, max(anchor, period.start + timedelta(minutes=1)))


def _line(
    delta: focus_sample.SampleDelta, customers: dict[str, CustomerId]
) -> dict[str, str | None]:
    return {
        "id": f"focus-{Period.containing(delta.moment)}-{delta.number:04}",
        "customerId": customers[delta.account],
        "sku": delta.sku,
        "quantity": plain(delta.quantity),
        "occurredAt": delta.moment.isoformat(),
        "app": delta.app,
        "region": delta.region,
        "organization": delta.organization,
    }


async def _compiled(
    services: Services, customers: Iterable[CustomerId], seconds: float = 120
) -> None:
    """Wait until Stripe has been told everything about *customers* (what was told before may yet be verified)."""
    waiting = list(customers)
    period = Period.containing(datetime.now(UTC))
    async with asyncio.timeout(seconds):
        while waiting:
            pictures = await asyncio.gather(
                *(services.ledger.peek(each, period) for each in waiting)
            )
            waiting = [each.customer for each in pictures if not each.told]
            await asyncio.sleep(POLL_SECONDS)


async def _all(items: Sequence[T], act: Callable[[T], Awaitable[None]]) -> None:
    """Do *act* for every item, a few at a time; the Stripe budget sets the pace."""
    slots = asyncio.Semaphore(8)

    async def one(item: T) -> None:
        async with slots:
            await act(item)

    await asyncio.gather(*(one(item) for item in items))
