"""The usage sample at Stripe and as lines for the usage door, and what it must come to, computed apart."""

import asyncio
import csv
from collections import defaultdict
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import orjson

from billing.budget import Lane
from billing.money import format_decimal
from billing.services import Services
from demo import focus_sample


async def put_into_stripe(services: Services) -> dict[str, str]:
    """Create the sample's customers and prices; Stripe ids by sub-account."""
    ids: dict[str, str] = {}
    few = asyncio.Semaphore(16)

    async def customer(account: focus_sample.SampleCustomer) -> None:
        params = {
            "name": account.name,
            "email": f"billing@{account.slug}.example",
            "metadata": {"organization": account.slug},
        }
        answer = await services.stripe.write(
            "/v1/customers", params, key=account.slug, lane=Lane.CUSTOMER
        )
        ids[account.account] = answer.body["id"]

    async def price(sample: focus_sample.SamplePrice) -> None:
        params = {
            "currency": "usd",
            "unit_amount_decimal": format_decimal(sample.unit_amount),
            "lookup_key": sample.sku,
            "product_data": {"name": sample.name},
        }
        async with few:
            await services.stripe.write(
                "/v1/prices", params, key=f"price {sample.sku}", lane=Lane.CUSTOMER
            )

    await asyncio.gather(
        *map(customer, focus_sample.customers()), *map(price, focus_sample.prices())
    )
    return ids


def usage_line(delta: focus_sample.SampleDelta, ids: dict[str, str]) -> bytes:
    """One line for ``POST /usage``."""
    return orjson.dumps(
        {
            "id": f"row-{delta.number}",
            "customerId": ids[delta.account],
            "sku": delta.sku,
            "quantity": format_decimal(delta.quantity),
            "occurredAt": delta.moment.isoformat(),
            "app": delta.app,
            "region": delta.region,
            "organization": delta.organization,
        },
    )


def expected_lines() -> dict[str, dict[str, int]]:
    """Cents by sub-account and SKU, straight from the CSV with Decimal; lines that come to no usage left out."""
    quantities: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    dollars: dict[str, Decimal] = {}
    with focus_sample.SAMPLE.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            quantities[row["SubAccountId"], row["SkuId"]] += Decimal(row["PricingQuantity"])
            listed = row["ListUnitPrice"]
            dollars.setdefault(row["SkuId"], Decimal(0) if listed == "NULL" else Decimal(listed))
    lines: dict[str, dict[str, int]] = defaultdict(dict)
    for (account, sku), quantity in quantities.items():
        if quantity:
            cents = (quantity * dollars[sku] * 100).quantize(Decimal(1), rounding=ROUND_HALF_UP)
            lines[account][sku] = int(cents)
    return dict(lines)


def shown_lines(lines: list[dict[str, Any]]) -> dict[str, int]:
    """Cents by line key, as Stripe's invoice lines show them."""
    return {line["metadata"]["gw_line"]: line["amount"] for line in lines}
