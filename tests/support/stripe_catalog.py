"""A small price catalog and its customers at the sandbox, for tests that need a customer to bill."""

from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count

from billing.budget import Lane
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
            params = {
                "currency": "usd",
                "unit_amount_decimal": cents,
                "lookup_key": sku,
                "product_data": {"name": sku.replace("-", " ")},
            }
            await self.services.stripe.write(
                "/v1/prices", params, key=f"price {sku}", lane=Lane.CUSTOMER
            )

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
