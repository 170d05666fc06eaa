"""Telling everybody who stays connected that the server ends."""

import asyncio
from collections.abc import Callable

Tell = Callable[[], None]


class Farewell:
    """Waits for *ending* once for all: a waiting task for each of thousands of sockets would cost kilobytes each."""

    def __init__(self, ending: asyncio.Event) -> None:
        self._ending = ending
        self._waiting: asyncio.Task[None] | None = None
        self._tell: set[Tell] = set()

    def tell(self, tell: Tell) -> None:
        """Call *tell* when the server ends; at once when it already does."""
        if self._ending.is_set():
            tell()
            return
        self._tell.add(tell)
        if self._waiting is None:
            self._waiting = asyncio.create_task(self._wait())

    def forget(self, tell: Tell) -> None:
        """Do not call *tell* any more."""
        self._tell.discard(tell)

    async def _wait(self) -> None:
        await self._ending.wait()
        while self._tell:
            self._tell.pop()()
