"""A gateway that does not start says why in one sentence, and nothing around it."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.types import Message

from billing.settings import Settings
from gateway.startup_errors import live
from tests.support.system import System, free_port

GATEWAY = ("uvicorn", "--factory", "gateway.app:create_app")
WORKER = ("arq", "workers.main.WorkerSettings")


async def test_without_its_ledger_a_gateway_leaves_a_sentence(
    settings: Settings, tmp_path: Path
) -> None:
    """No traceback: whoever reads the log sees which variable to look at, and the exit is no success."""
    away = settings.model_copy(update={"redis_url": f"redis://127.0.0.1:{free_port()}"})
    system = System(away, tmp_path)
    process = system.start(*GATEWAY, "--port", str(system.port))

    status = await asyncio.to_thread(process.wait, 60)

    log = (tmp_path / "uvicorn-0.log").read_text()
    said = [json.loads(each) for each in log.splitlines()]  # JSON from end to end
    assert status == 3
    assert "Traceback" not in log
    [refusal] = [each["reason"] for each in said if each["event"] == "start.refused"]
    assert refusal.startswith("BILLING_REDIS_URL: The ledger cannot be reached")
    assert said[-1]["event"] == "Application startup failed. Exiting."


@pytest.mark.parametrize("command", [GATEWAY, WORKER])
async def test_a_number_that_the_ledger_cannot_keep_leaves_a_sentence(
    settings: Settings, tmp_path: Path, command: Sequence[str]
) -> None:
    """With the figure that it can: nobody has to read the ledger's own rules out of a traceback."""
    system = System(settings.model_copy(update={"usage_max_age": 45 * 86_400}), tmp_path)
    process = system.start(*command)

    status = await asyncio.to_thread(process.wait, 60)

    log = (tmp_path / f"{command[0]}-0.log").read_text()
    assert status == 1
    assert "Traceback" not in log
    assert "Refusing to start: BILLING_USAGE_MAX_AGE is invalid" in log
    assert "at most 38 days (3283200)" in log


async def test_what_breaks_at_start_is_still_told_in_full() -> None:
    """A fault of ours is no refusal: its traceback is what there is to find it by."""

    @asynccontextmanager
    async def broken(_: Starlette) -> AsyncIterator[None]:
        raise KeyError("ours")
        yield

    async def begin() -> Message:
        return {"type": "lifespan.startup"}

    told: list[Message] = []

    async def hear(message: Message) -> None:
        told.append(message)

    with pytest.raises(KeyError):
        await live(Starlette(lifespan=broken), {"type": "lifespan"}, begin, hear)

    [failed] = told
    assert 'KeyError("ours")' in failed["message"]
