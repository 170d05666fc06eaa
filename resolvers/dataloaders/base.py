"""A DataLoader that is safe under cancellation: aiodataloader's batches, with three problems fixed.

Cancelling one caller does not cancel the future that other callers share; cancelling a batch fails its
callers instead of leaving them waiting; the failure of one key affects that key alone.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar, cast

from aiodataloader import DataLoader, dispatch_queue
from aiodataloader import Loader as QueuedKey

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Loader(Generic[K, V]):
    """Loads values by key for one operation: each key once, all keys of a loop tick in one batch.

    *batch* returns values in the order of its keys. An exception among them is raised by that key's `load`.
    """

    def __init__(
        self, batch: Callable[[Sequence[K]], Awaitable[Sequence[V | BaseException]]]
    ) -> None:
        self._loader: _DataLoader[K, V] = _DataLoader(batch)

    @classmethod
    def per_key(cls, one: Callable[[K], Awaitable[V]]) -> "Loader[K, V]":
        """A loader whose batch runs *one* for each key, concurrently."""

        async def batch(keys: Sequence[K]) -> Sequence[V | BaseException]:
            if len(keys) == 1:  # the usual case; saves a task
                return [await one(keys[0])]
            return await asyncio.gather(*(one(key) for key in keys), return_exceptions=True)

        return cls(batch)

    async def load(self, key: K) -> V:
        """The value of *key*."""
        loading = asyncio.shield(self._loader.load(key))
        loading.add_done_callback(_consume_exception)
        return await loading

    def prime(self, key: K, value: V) -> None:
        """Set the value of *key*, unless it was loaded before."""
        self._loader.prime(key, value)


class _DataLoader(DataLoader[K, V]):
    """aiodataloader, without the extra task that it starts in order to start a batch's task.

    It stores no bound method of itself, so that loaders are freed without the cycle collector.
    """

    def __init__(
        self, batch: Callable[[Sequence[K]], Awaitable[Sequence[V | BaseException]]]
    ) -> None:
        super().__init__()
        self._batch = batch
        self._running: set[asyncio.Task[object]] = set()

    @staticmethod
    def get_cache_key(key: K) -> K:
        """*key* itself."""
        return key

    async def batch_load_fn(self, keys: list[K]) -> list[V]:
        """Run the batch; an exception among the values belongs to its key alone."""
        self._keep_alive(asyncio.current_task())
        try:
            answers = await self._batch(keys)
        except BaseException as error:  # noqa: BLE001 aiodataloader lets a CancelledError hang every caller
            answers = [error] * len(keys)
        return [_as_value(answer) for answer in answers]

    def _keep_alive(self, task: "asyncio.Task[object] | None") -> None:
        """Hold a reference to the batch's task, because aiodataloader holds none."""
        if task is not None:
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def do_resolve_reject(self, key: K, future: "asyncio.Future[V]") -> None:
        """Queue *key*; the queue is dispatched at the end of the loop tick."""
        self._queue.append(QueuedKey(key=key, future=future))
        if len(self._queue) == 1:
            self.loop.call_soon(dispatch_queue, self)


def _consume_exception(loading: "asyncio.Future[V]") -> None:
    """Mark the exception as retrieved: every caller may have been cancelled."""
    if not loading.cancelled():
        loading.exception()


def _as_value(answer: V | BaseException) -> V:
    """Convert a BaseException to an Exception, the only type that aiodataloader raises."""
    if isinstance(answer, BaseException) and not isinstance(answer, Exception):
        answer = ConnectionAbortedError("Loading was cancelled.")
    return cast("V", answer)
