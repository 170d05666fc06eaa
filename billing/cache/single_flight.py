"""One flow at a time per key; whoever asks while it runs shares the next one."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Queue(Generic[T]):
    running: asyncio.Task[T]
    waiting: asyncio.Task[T] | None = None


class Turns(Generic[T]):
    """Single flight that is exact: nobody is given the result of a flow that began before they asked.

    The flows are tasks of their own: a caller that is cancelled leaves, the flow goes on.
    """

    def __init__(self) -> None:
        self._queues: dict[str, _Queue[T]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def take(self, key: str, flow: Callable[[], Awaitable[T]]) -> T:
        """The result of the next *flow* of *key* to begin."""
        queue = self._queues.get(key)
        if queue is None:
            task = self.start(self._run(key, flow, None))
            self._queues[key] = _Queue(task)
        elif queue.waiting is None:
            task = queue.waiting = self.start(self._run(key, flow, queue.running))
        else:
            task = queue.waiting
        return await asyncio.shield(task)

    def start(self, flow: Any) -> asyncio.Task[Any]:
        """Run *flow* beside everything else, until ``close`` at the latest."""
        task = asyncio.get_running_loop().create_task(flow)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def close(self) -> None:
        """Stop every flow."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(
        self, key: str, flow: Callable[[], Awaitable[T]], before: asyncio.Task[T] | None
    ) -> T:
        if before is not None:
            await asyncio.wait([before])
        try:
            return await flow()
        finally:
            self._step(key)

    def _step(self, key: str) -> None:
        queue = self._queues[key]
        if queue.waiting is None:
            del self._queues[key]
        else:
            self._queues[key] = _Queue(queue.waiting)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # seen: whoever waited has it, and perhaps nobody did
