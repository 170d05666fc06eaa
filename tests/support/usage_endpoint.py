"""Usage through ``POST /usage``, as a metering service sends it."""

from collections.abc import Mapping
from decimal import Decimal

import orjson

from tests.support.stripe_catalog import delta
from tests.support.system import System


async def report(
    system: System,
    customer: str,
    quantities: Mapping[str, Decimal | str],
    **labels: str,
) -> None:
    """Report *quantities* by SKU, now, with *labels* (app, …); every one of them must be accepted."""
    lines = []
    for sku, quantity in quantities.items():
        raw = delta(customer, str(quantity), sku)
        lines.append(
            orjson.dumps(
                {
                    "id": raw.id,
                    "customerId": raw.customer_id,
                    "sku": raw.sku,
                    "quantity": raw.quantity,
                    "occurredAt": raw.occurred_at,
                    **labels,
                },
            ),
        )
    async with system.caller("metering") as metering:
        answer = (await metering.http.post("/usage", content=b"\n".join(lines))).json()
    assert answer["accepted"] == len(lines), answer
