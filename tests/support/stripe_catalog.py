"""A small price catalog and its customers at the sandbox, for tests that need a customer to bill."""

from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import Any

from billing.budget import Lane
from billing.cache import entries
from billing.services import Services
from billing.usage_validation import RawDelta

CENTS = {"machine-seconds": "0.0031", "volume-hours": "0.0205479452", "egress-gb": "2"}
_numbers = count(1)


@dataclass(frozen=True)
class Shop:
    """Stripe with three prices, in US cents: see ``CENTS``."""

    services: Services

    async def open(self) -> None:
        """Create the prices."""
        for sku, cents in CENTS.items():
            await self._create_price(sku, unit_amount_decimal=cents)

    async def sell(self, sku: str, **changed: Any) -> str:
        """Sell *sku* at a new price, one-time and two cents a unit unless *changed*; returns its id.

        The price before loses its lookup key and stays active.
        """
        price = await self._create_price(sku, **{"unit_amount_decimal": "2", **changed})
        await self.reload()
        return price

    async def update(self, path: str, **params: Any) -> None:
        """Change a price or product and reload the catalog."""
        key = f"{path} {next(_numbers)}"
        await self.services.stripe.write(f"/v1/{path}", params, key=key, lane=Lane.CUSTOMER)
        await self.reload()

    async def archive(self, sku: str) -> str:
        """Archive the price of *sku*, which has its lookup key still; returns its id."""
        price = (await self.services.price_catalog.by_sku([sku]))[sku].id
        await self.update(f"prices/{price}", active=False)
        return price

    async def reload(self) -> None:
        """Reload the catalog at its next use, as after a webhook and a second."""
        await self.services.cache.invalidate(entries.PRICE_CATALOG)
        self.services.price_catalog._checked_at = float("-inf")

    async def _create_price(self, sku: str, **changed: Any) -> str:
        params = {
            "currency": "usd",
            "lookup_key": sku,
            "transfer_lookup_key": True,
            "product_data": {"name": sku.replace("-", " ")},
            **changed,
        }
        if params.get("billing_scheme") or params.get("custom_unit_amount"):
            del params["unit_amount_decimal"]
        answer = await self.services.stripe.write(
            "/v1/prices", params, key=f"price {sku} {next(_numbers)}", lane=Lane.CUSTOMER
        )
        price: str = answer.body["id"]
        return price

    async def customer(self, slug: str = "acme") -> str:
        """A new customer's id."""
        params = {
            "name": slug.title(),
            "email": f"billing@{slug}.example",
            "metadata": {"organization": slug},
        }
        key = f"customer {slug} {next(_numbers)}"
        answer = await self.services.stripe.write(
            "/v1/customers", params, key=key, lane=Lane.CUSTOMER
        )
        customer: str = answer.body["id"]
        return customer


def delta(
    customer: str, quantity: str = "1", sku: str = "machine-seconds", **changed: str
) -> RawDelta:
    """A delta of now with an id of its own, unless *changed* says otherwise."""
    given = {
        "id": f"delta-{next(_numbers)}",
        "customer_id": customer,
        "sku": sku,
        "quantity": quantity,
        "occurred_at": datetime.now(UTC).isoformat(),
        **changed,
    }
    return RawDelta(**given)
