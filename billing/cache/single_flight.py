"""Single flight: one load per key; callers that arrive during a load share the next one."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Flight(Generic[T]):
    running: asyncio.Task[T]
    waiting: asyncio.Task[T] | None = None


class SingleFlight(Generic[T]):
    """An exact single flight: no caller gets the result of an operation that began before its call.

    Operations run in tasks of their own: a cancelled caller does not stop them.
    """

    def __init__(self) -> None:
        self._flights: dict[str, _Flight[T]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, key: str, operation: Callable[[], Awaitable[T]]) -> T:
        """The result of the next operation of *key* to begin."""
        flight = self._flights.get(key)
        if flight is None:
            task = self.start(self._run_after(key, operation, None))
            self._flights[key] = _Flight(task)
        elif flight.waiting is None:
            task = flight.waiting = self.start(self._run_after(key, operation, flight.running))
        else:
            task = flight.waiting
        return await asyncio.shield(task)

    def start(self, coroutine: Any) -> asyncio.Task[Any]:
        """Run *coroutine* in the background, until ``close`` at the latest."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    async def close(self) -> None:
        """Cancel every operation."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run_after(
        self, key: str, operation: Callable[[], Awaitable[T]], previous: asyncio.Task[T] | None
    ) -> T:
        if previous is not None:
            await asyncio.wait([previous])
        try:
            return await operation()
        finally:
            self._promote_waiting(key)

    def _promote_waiting(self, key: str) -> None:
        flight = self._flights[key]
        if flight.waiting is None:
            del self._flights[key]
        else:
            self._flights[key] = _Flight(flight.waiting)

    def _on_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved, in case every caller was cancelled
