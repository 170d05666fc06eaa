"""A gateway that cannot start logs one sentence and no traceback."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.types import Message

from billing.settings import Environment, Settings
from gateway.telemetry import lifespan
from tests.support.system import System, free_port

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
    assert reason.startswith("BILLING_REDIS_URL: The ledger cannot be reached")
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
