"""Helpers for tasks: cancel until they end, or run to completion despite cancellation."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

CANCEL_RETRY_SECONDS = 1.0

T = TypeVar("T")


async def cancel_and_wait(*tasks: asyncio.Future[Any]) -> None:
    """Cancel *tasks*, repeatedly if necessary, and return when all have ended.

    `asyncio.wait_for`, in which redis-py sends each command, swallows a cancellation that coincides
    with its result (Python before 3.12): cancelled once, a subscription might listen for ever.
    """
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=CANCEL_RETRY_SECONDS)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # mark it as retrieved: the client of this task has disconnected


async def run_to_completion(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return the result of *coroutine*; a cancelled caller still waits for its end."""
    task = asyncio.create_task(coroutine)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as cancellation:
            cancelled = cancellation
    if cancelled:
        raise cancelled
    return task.result()
