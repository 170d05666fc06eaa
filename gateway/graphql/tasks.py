"""Stopping tasks for certain, and not stopping what has to be finished."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

PATIENCE = 1.0

T = TypeVar("T")


async def stop(*tasks: asyncio.Future[Any]) -> None:
    """Cancel *tasks*, again if need be, and return when all of them have ended.

    `asyncio.wait_for`, in which redis-py sends each command, swallows a cancellation that meets its
    result (Python before 3.12): cancelled once, a subscription might listen for ever.
    """
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=PATIENCE)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # that of a client who left in the middle; nobody else asks for it


async def finish(doing: Coroutine[Any, Any, T]) -> T:
    """What *doing* comes to. Whoever is cancelled while waiting for it waits for its end all the same."""
    task = asyncio.create_task(doing)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as cancellation:
            cancelled = cancellation
    if cancelled:
        raise cancelled
    return task.result()
