"""Deadlines: no timer for a result that is there, a timeout for one that is not."""

import asyncio

import pytest

from billing.deadline import complete_within


async def test_available_result_needs_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer would cost each request more than its body."""
    monkeypatch.setattr(asyncio, "timeout", None)

    async def read() -> str:
        return "body"

    assert await complete_within(1, read) == "body"


async def test_waiting_read_is_restarted_and_completed() -> None:
    """What the first attempt had read by then is not lost, because it resumes."""
    queue: asyncio.Queue[str] = asyncio.Queue()
    queue.put_nowait("first")
    parts: list[str] = []

    async def read() -> list[str]:
        while len(parts) < 2:
            parts.append(await queue.get())
        return parts

    reading = asyncio.create_task(complete_within(5, read))
    await asyncio.sleep(0.01)
    queue.put_nowait("second")

    assert await reading == ["first", "second"]


async def test_late_result_times_out() -> None:
    """A client that sends nothing must not hold a connection for ever."""
    with pytest.raises(TimeoutError):
        await complete_within(0.01, asyncio.Event().wait)


async def test_error_of_the_read_is_raised() -> None:
    """Unchanged, whether it comes at once or later."""

    async def read() -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await complete_within(1, read)
