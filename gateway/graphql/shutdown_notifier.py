"""Notifies open WebSockets and SSE streams of shutdown, from one task."""

import asyncio
from collections.abc import Callable

Callback = Callable[[], None]


class ShutdownNotifier:
    """Waits for *shutdown* once for all: a waiting task for each of thousands of sockets costs kilobytes."""

    def __init__(self, shutdown: asyncio.Event) -> None:
        self._shutdown = shutdown
        self._task: asyncio.Task[None] | None = None
        self._callbacks: set[Callback] = set()

    def subscribe(self, callback: Callback) -> None:
        """Call *callback* at shutdown; immediately when shutdown has begun."""
        if self._shutdown.is_set():
            callback()
            return
        self._callbacks.add(callback)
        if self._task is None:
            self._task = asyncio.create_task(self._notify())

    def unsubscribe(self, callback: Callback) -> None:
        """Do not call *callback* any more."""
        self._callbacks.discard(callback)

    async def _notify(self) -> None:
        await self._shutdown.wait()
        while self._callbacks:
            self._callbacks.pop()()
