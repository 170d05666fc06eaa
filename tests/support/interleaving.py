"""Interleavings on purpose: actors that take one step at a time, in an order that the test chooses."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar

actor: ContextVar[str] = ContextVar("actor")
HOPS = 15  # callbacks between the end of a step and the next one's beginning, generously


class Schedule:
    """Lets one step happen at a time: the next of *order* (``actor.step``) if given, else a drawn one.

    After *order* is used up, or when nobody comes for its next step, the rest is drawn too.
    """

    def __init__(self, seed: int = 0, order: Sequence[str] = ()) -> None:
        self._random = random.Random(seed)
        self._order = list(order)
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []
        self._over = asyncio.Event()
        self.taken: list[str] = []

    @asynccontextmanager
    async def step(self, name: str) -> AsyncIterator[None]:
        """Wait for this step's step; nobody else takes a step until the block is left."""
        step: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((f"{actor.get()}.{name}", step))
        await step
        try:
            yield
        finally:
            self._over.set()

    async def run(self, **actors: Awaitable[None]) -> None:
        """Run *actors* to their ends."""
        tasks = [asyncio.create_task(_named(name, actor)) for name, actor in actors.items()]
        while not all(task.done() for task in tasks):
            for _ in range(HOPS):
                await asyncio.sleep(0)
            if not self._waiting:
                await asyncio.sleep(0.001)
                continue
            name, step = self._waiting.pop(self._choice())
            self.taken.append(name)
            self._over.clear()
            step.set_result(None)
            await self._over.wait()
        await asyncio.gather(*tasks)

    def _choice(self) -> int:
        names = [name for name, _ in self._waiting]
        if self._order and self._order[0] in names:
            return names.index(self._order.pop(0))
        return self._random.randrange(len(names))


async def _named(name: str, work: Awaitable[None]) -> None:
    actor.set(name)
    await work
