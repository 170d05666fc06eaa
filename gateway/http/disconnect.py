"""Cancels work when its client disconnects."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar, cast

from starlette.requests import ClientDisconnect
from starlette.types import Receive

# Most responses are ready before that; watching for a disconnect costs a task.
WATCH_AFTER_SECONDS = 0.1

T = TypeVar("T")


async def cancel_on_disconnect(response: Awaitable[T], receive: Receive) -> T:
    """Await *response*; cancel it and raise ClientDisconnect when the client disconnects first."""
    loop = asyncio.get_running_loop()
    request_task = cast("asyncio.Task[object]", asyncio.current_task())
    watchers: list[asyncio.Task[None]] = []

    async def watch() -> None:
        await wait_for_disconnect(receive)
        request_task.cancel()

    timer = loop.call_later(WATCH_AFTER_SECONDS, lambda: watchers.append(loop.create_task(watch())))
    try:
        return await response
    except asyncio.CancelledError:
        if not (watchers and watchers[0].done()):
            raise
        request_task.uncancel()
        raise ClientDisconnect from None
    finally:
        timer.cancel()
        for task in watchers:
            task.cancel()


async def wait_for_disconnect(receive: Receive) -> None:
    """Return when the client has disconnected."""
    while (await receive())["type"] != "http.disconnect":
        pass
