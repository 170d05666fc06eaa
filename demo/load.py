"""Load the usage sample: customers and prices into Stripe, usage through ``POST /usage``.

Loading is idempotent: existing customers and prices are found, and a delta's id counts once.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx
import orjson

from billing.money import format_decimal
from billing.services import Services
from billing.usage import CustomerId, Period
from demo import showcase
from demo.focus_sample import SampleDelta
from demo.home import get_or_store
from demo.stripe_objects import create_customers, create_prices
from demo.tokens import token

BATCH = 500
POLL_SECONDS = 0.1
ANSWERS = (200, 422, 503)  # with a report: all, none for good, none for now


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The customers by sub-account, and the number of deltas that are in the ledger."""

    customers: dict[str, CustomerId]
    deltas: int

    @property
    def most_used(self) -> list[CustomerId]:
        """The customers, those with the most rows of usage first."""
        return [self.customers[account] for account in showcase.most_used()]


async def load(services: Services, gateway: str) -> LoadResult:
    """Load the sample into *gateway* (its base address) and print the progress."""
    print("Loading the demo: customers and prices into Stripe …", flush=True)
    customers, _ = await asyncio.gather(create_customers(services), create_prices(services))
    print("Loading the demo: 1,000 usage deltas through POST /usage …", flush=True)
    recorded = await _report_usage(gateway, customers)
    print("Waiting until the worker has compiled every customer's draft invoice …", flush=True)
    await _wait_until_synced(services, customers.values())
    return LoadResult(customers, recorded)


async def _report_usage(gateway: str, customers: dict[str, CustomerId]) -> int:
    """Report the sample as a metering service does; return the number of deltas that are in the ledger."""
    lines = [usage_line(delta, customers) for delta in _deltas()]
    headers = {
        "Authorization": f"Bearer {token('metering')}",
        "Content-Type": "application/x-ndjson",
    }
    async with httpx.AsyncClient(base_url=gateway, timeout=60, headers=headers) as client:
        batches = [lines[start : start + BATCH] for start in range(0, len(lines), BATCH)]
        return sum([await _report_batch(client, batch) for batch in batches])


async def _report_batch(client: httpx.AsyncClient, lines: list[dict[str, str | None]]) -> int:
    """Send *lines*, and those that may count later again after the time that the answer names."""
    recorded, waiting = 0, {line["id"]: line for line in lines}
    while waiting:
        content = b"\n".join(orjson.dumps(line) for line in waiting.values())
        response = await client.post("/usage", content=content)
        if response.status_code not in ANSWERS:
            response.raise_for_status()
        report = response.json()
        recorded += report["accepted"] + report["duplicates"]
        errors = {rejection["id"]: rejection["error"] for rejection in report["rejected"]}
        for name, error in errors.items():
            if not error["retryAfter"]:
                print(f"Rejected {name}: {error['message']}")
        waiting = {name: waiting[name] for name, error in errors.items() if error["retryAfter"]}
        pauses = [error["retryAfter"] for error in errors.values() if error["retryAfter"]]
        await asyncio.sleep(max(pauses, default=0))
    return recorded


def _deltas() -> list[SampleDelta]:
    """Return the sample scaled to the open period; its times are the same at every start within it."""
    now = datetime.now(UTC)
    period = Period.containing(now)
    anchor = datetime.fromisoformat(get_or_store(f"loaded_{period}", now.isoformat()))
    return showcase.deltas(period.start, max(anchor, period.start + timedelta(minutes=1)))


def usage_line(delta: SampleDelta, customers: dict[str, CustomerId]) -> dict[str, str | None]:
    """Return *delta* as a line of ``POST /usage``."""
    return {
        "id": f"sample-{Period.containing(delta.moment)}-{delta.number:04}",
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
