"""Not working for somebody who has left."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar, cast

from starlette.requests import ClientDisconnect
from starlette.types import Receive

# Most answers are there by then, and looking whether the caller still is costs a task.
LOOK_AFTER = 0.1  # seconds

T = TypeVar("T")


async def while_awaited(answer: Awaitable[T], receive: Receive) -> T:
    """*answer*; it is cancelled, and ClientDisconnect raised, when its caller leaves before it is there."""
    loop = asyncio.get_running_loop()
    asking = cast("asyncio.Task[object]", asyncio.current_task())
    looking: list[asyncio.Task[None]] = []

    async def look() -> None:
        await gone(receive)
        asking.cancel()

    timer = loop.call_later(LOOK_AFTER, lambda: looking.append(loop.create_task(look())))
    try:
        return await answer
    except asyncio.CancelledError:
        if not (looking and looking[0].done()):
            raise
        asking.uncancel()
        raise ClientDisconnect from None
    finally:
        timer.cancel()
        for task in looking:
            task.cancel()


async def gone(receive: Receive) -> None:
    """Return when the caller has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
