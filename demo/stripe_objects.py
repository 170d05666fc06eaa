"""The showcase's customers and prices at Stripe, found or created; for the sandbox, as a seed file with fixed ids."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import orjson

from billing.budget import Lane
from billing.money import format_decimal
from billing.services import Services
from billing.usage import CustomerId
from demo import showcase
from demo.focus_sample import UNIT_LABEL, SampleCustomer, SamplePrice

T = TypeVar("T")


def write_seed(path: Path) -> None:
    """Write the sandbox's seed file: the same ids in every demo, so that an example can name one."""
    customers = [
        {"id": showcase.customer_id(customer.account), **_customer_params(customer)}
        for customer in showcase.customers()
    ]
    prices = [
        {"id": f"price_{price.sku.replace('-', '_')}", **_price_params(price)}
        for price in showcase.prices()
    ]
    path.write_bytes(orjson.dumps({"customers": customers, "prices": prices}))


def _customer_params(customer: SampleCustomer) -> dict[str, Any]:
    """Return the parameters with which Stripe creates *customer*."""
    return {
        "name": customer.name,
        "email": f"billing@{customer.slug}.example",
        "metadata": {"organization": customer.slug, "sub_account": customer.account},
    }


def _price_params(price: SamplePrice) -> dict[str, Any]:
    """Return the parameters with which Stripe creates *price*."""
    return {
        "currency": "usd",
        "unit_amount_decimal": format_decimal(price.unit_amount),
        "lookup_key": price.sku,
        "product_data": {
            "name": price.name,
            "unit_label": price.unit[:UNIT_LABEL],
            "metadata": {"unit": price.unit},
        },
    }


async def create_customers(services: Services) -> dict[str, CustomerId]:
    """Create the customers that Stripe does not have; return all of them by sub-account."""
    listed = await services.stripe.list_all("/v1/customers", {}, lane=Lane.SUPPORT)
    existing = {row["metadata"].get("sub_account"): CustomerId(row["id"]) for row in listed}

    async def create(customer: SampleCustomer) -> None:
        key = f"demo:customer:{customer.slug}"
        response = await services.stripe.write(
            "/v1/customers", _customer_params(customer), key=key, lane=Lane.SUPPORT
        )
        existing[customer.account] = CustomerId(response.body["id"])

    sample = showcase.customers()
    await for_each([customer for customer in sample if customer.account not in existing], create)
    return {customer.account: existing[customer.account] for customer in sample}


async def create_prices(services: Services) -> None:
    """Create the prices that Stripe does not have."""
    listed = await services.stripe.list_all("/v1/prices", {}, lane=Lane.SUPPORT)
    existing = {row["lookup_key"] for row in listed}

    async def create(price: SamplePrice) -> None:
        key = f"demo:price:{price.sku}"
        await services.stripe.write("/v1/prices", _price_params(price), key=key, lane=Lane.SUPPORT)

    await for_each([price for price in showcase.prices() if price.sku not in existing], create)


async def for_each(items: Sequence[T], action: Callable[[T], Awaitable[None]]) -> None:
    """Await *action* for every item, eight at a time; the Stripe budget limits the rate."""
    slots = asyncio.Semaphore(8)

    async def one(item: T) -> None:
        async with slots:
            await action(item)

    await asyncio.gather(*(one(item) for item in items))
