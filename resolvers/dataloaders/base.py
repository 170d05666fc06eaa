"""A DataLoader that can be left: aiodataloader's batches, guarded against its three traps.

A caller that is cancelled must not take the future along that others wait for, and that the loader
keeps; a batch that is cancelled must not leave its callers waiting; one key's failure is that key's.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar, cast

from aiodataloader import DataLoader, dispatch_queue
from aiodataloader import Loader as Asked

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Loader(Generic[K, V]):
    """Loads values by key for one operation: each key once, all keys of a loop tick in one batch.

    *batch* answers its keys in order. A value that is an exception is raised where its key was loaded.
    """

    def __init__(
        self, batch: Callable[[Sequence[K]], Awaitable[Sequence[V | BaseException]]]
    ) -> None:
        self._loader: _DataLoader[K, V] = _DataLoader(batch)

    @classmethod
    def each(cls, one: Callable[[K], Awaitable[V]]) -> "Loader[K, V]":
        """A loader whose batch runs *one* for each key, side by side."""

        async def batch(keys: Sequence[K]) -> Sequence[V | BaseException]:
            if len(keys) == 1:  # the usual case needs no task of its own
                return [await one(keys[0])]
            return await asyncio.gather(*(one(key) for key in keys), return_exceptions=True)

        return cls(batch)

    async def load(self, key: K) -> V:
        """The value of *key*."""
        loading = asyncio.shield(self._loader.load(key))
        loading.add_done_callback(_seen)
        return await loading

    def prime(self, key: K, value: V) -> None:
        """Answer *key* with *value*, unless it was asked for before."""
        self._loader.prime(key, value)


class _DataLoader(DataLoader[K, V]):
    """aiodataloader, without the task that it starts in order to start a batch's task.

    It keeps no method of its own, as aiodataloader would of a function given to it: an answer's loaders
    are gone with the answer, and nobody has to look for cycles among them.
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
        """What the batch answers; an exception among the values is its key's alone."""
        self._hold(asyncio.current_task())
        try:
            answers = await self._batch(keys)
        except BaseException as error:  # noqa: BLE001 aiodataloader lets a CancelledError hang every caller
            answers = [error] * len(keys)
        return [_told(answer) for answer in answers]

    def _hold(self, task: "asyncio.Task[object] | None") -> None:
        """Keep the batch's task, of which aiodataloader keeps no reference."""
        if task is not None:
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def do_resolve_reject(self, key: K, future: "asyncio.Future[V]") -> None:
        """Put *key* on the queue, which is dispatched once what runs in this loop tick has asked."""
        self._queue.append(Asked(key=key, future=future))
        if len(self._queue) == 1:
            self.loop.call_soon(dispatch_queue, self)


def _seen(loading: "asyncio.Future[V]") -> None:
    """Take note of its failure: whoever waited has it, and perhaps nobody does any more."""
    if not loading.cancelled():
        loading.exception()


def _told(answer: V | BaseException) -> V:
    """*answer* in the type by which aiodataloader knows an error: it raises the exceptions among values."""
    if isinstance(answer, BaseException) and not isinstance(answer, Exception):
        answer = ConnectionAbortedError("Loading was cancelled.")
    return cast("V", answer)
