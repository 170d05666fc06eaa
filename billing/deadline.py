"""A timeout that costs nothing when the awaited result is already there."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def complete_within(seconds: float, start: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Await the coroutine that *start* returns; TimeoutError after *seconds*.

    A request's body has nearly always arrived, and a timer would cost more than reading it. So the
    coroutine first runs without one. If it has to wait, it is closed and started again with a timer;
    *start* must be able to resume.
    """
    attempt = start()
    try:
        attempt.send(None)
    except StopIteration as completed:
        result: T = completed.value
        return result
    attempt.close()
    async with asyncio.timeout(seconds):
        return await start()
