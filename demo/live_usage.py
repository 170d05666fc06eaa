"""Usage that keeps flowing while the demo runs, so that an open panel moves."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import uuid4

import httpx

from billing.usage import CustomerId
from demo.tokens import token

SECONDS = 3
SKU = "egress-iad"  # some cents a delta
BUSY_CUSTOMERS = 5


def send(gateway: str, customers: Sequence[CustomerId]) -> None:
    """Report some egress of one of the most used *customers*; without an answer it is not sent again."""
    megabytes = random.randint(50, 900)  # noqa: S311 anything will do
    delta = {
        "id": f"live-{uuid4()}",
        "customerId": random.choice(customers[:BUSY_CUSTOMERS]),  # noqa: S311
        "sku": SKU,
        "quantity": f"0.{megabytes:03}",
        "occurredAt": datetime.now(UTC).isoformat(),
        "app": "edge",
        "region": "iad",
    }
    headers = {"Authorization": f"Bearer {token('metering')}"}
    try:
        httpx.post(f"{gateway}/usage", json=delta, headers=headers, timeout=2)
    except httpx.HTTPError:
        return
