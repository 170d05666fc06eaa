"""Slots of the event loop: long lists are made in parts, so that no other request waits for a whole one."""

import asyncio

ROWS_PER_SLOT = 200
"""Rows that all operations together make in one iteration of the event loop: less than 20 ms of work."""


class LoopSlots:
    """Counts the rows made in the current iteration of the event loop."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rows = 0

    async def take(self, rows: int) -> None:
        """Return when *rows* may be made without a break; a list longer than a slot gets one of its own."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._rows = loop, 0
        while self._rows and self._rows + rows > ROWS_PER_SLOT:  # noqa: ASYNC110 the loop itself is awaited
            await asyncio.sleep(0)
        if not self._rows:
            loop.call_soon(self._begin)
        self._rows += rows

    def _begin(self) -> None:
        self._rows = 0


loop_slots = LoopSlots()
