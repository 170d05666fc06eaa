"""Waits for a condition for a bounded time, instead of sleeping for a while."""

import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio

T = TypeVar("T")
FIRST_PAUSE, LAST_PAUSE = 0.005, 0.1


async def wait_until(
    condition: Callable[[], object], what: str = "it happens", seconds: float = 30
) -> Any:
    """Return the first true result of *condition*, which may be async; fail after *seconds*.

    The pauses grow, so that waiting leaves the processor to the awaited process.
    """
    deadline, pause = time.monotonic() + seconds, FIRST_PAUSE
    while True:
        result = condition()
        if inspect.isawaitable(result):
            result = await result
        if result:
            return result
        assert time.monotonic() < deadline, f"waited {seconds} s in vain until {what}"
        await anyio.sleep(pause)
        pause = min(pause * 1.2, LAST_PAUSE)


async def wait_for_value(
    read: Callable[[], Awaitable[T]], expected: T, seconds: float = 10
) -> None:
    """Repeat *read* until it returns *expected*; fail with the last value after *seconds*."""
    deadline = time.monotonic() + seconds
    while (found := await read()) != expected:
        assert time.monotonic() < deadline, f"still {found!r}, not {expected!r}"
        await anyio.sleep(0.02)
