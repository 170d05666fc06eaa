"""Stopping tasks for certain."""

import asyncio
from typing import Any

PATIENCE = 1.0


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
