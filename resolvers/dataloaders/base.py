"""Dataloaders of one operation: aiodataloader's batches, safe under cancellation.

A cancelled caller must not cancel the future that others await and that the loader caches. A cancelled
batch must not leave its callers waiting. A failure of one key belongs to that key alone.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial, wraps
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

from aiodataloader import DataLoader, Loader, dispatch_queue

S = TypeVar("S", bound="DataLoaders")
P = ParamSpec("P")
K = TypeVar("K")
V = TypeVar("V")
BatchFunction = Callable[[Sequence["Arguments"]], Awaitable[Sequence[Any]]]


class Arguments(NamedTuple):
    """The key of a load: the arguments of its call."""

    positional: tuple[Any, ...]
    keywords: tuple[tuple[str, Any], ...] = ()


class DataLoaders:
    """Base class of the loaders of one operation: each decorated method is one DataLoader."""

    def __init__(self) -> None:
        self._loaders: dict[str, _Loader] = {}

    def clear(self) -> None:
        """Drop what was loaded, and with it the reference cycle between loaders and this object."""
        self._loaders.clear()

    def _loader(self, method: str) -> "_Loader":
        loader = self._loaders.get(method)
        if loader is None:
            load = getattr(type(self), method)
            batch: BatchFunction = partial(load.batch, self)
            loader = self._loaders[method] = _Loader(batch, load.max_batch_size)
        return loader

    def _prime(self, method: str, argument: object, value: object) -> None:
        """Set the result of *method* for *argument*, unless it was loaded before."""
        self._loader(method).prime(Arguments((argument,)), value)

    async def _load(self, method: str, arguments: Arguments) -> Any:
        loading = self._loader(method).load(arguments)
        shield = asyncio.shield(loading)
        for future in (loading, shield):
            future.add_done_callback(_retrieve_exception)
        return await shield


def load_once(
    method: Callable[Concatenate[S, P], Coroutine[Any, Any, V]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, V]]:
    """Run *method* once per operation for the same arguments; no call waits for another."""

    async def batch(self: S, keys: Sequence[Arguments]) -> Sequence[V]:
        [key] = keys
        return [await method(self, *key.positional, **dict(key.keywords))]

    @wraps(method)
    async def load(self: S, /, *args: P.args, **kwargs: P.kwargs) -> V:
        result: V = await self._load(method.__name__, Arguments(args, tuple(kwargs.items())))
        return result

    load.batch, load.max_batch_size = batch, 1  # type: ignore[attr-defined]
    return load


def load_batch(
    method: Callable[[S, Sequence[K]], Coroutine[Any, Any, Sequence[V]]],
) -> Callable[[S, K], Coroutine[Any, Any, V]]:
    """Load single keys with *method*, which gets the new keys of one loop iteration together.

    It returns one value for each key, in order.
    """

    async def batch(self: S, keys: Sequence[Arguments]) -> Sequence[V]:
        return await method(self, [key.positional[0] for key in keys])

    @wraps(method)
    async def load(self: S, key: K) -> V:
        result: V = await self._load(method.__name__, Arguments((key,)))
        return result

    load.batch, load.max_batch_size = batch, None  # type: ignore[attr-defined]
    return load


class _Loader(DataLoader[Arguments, Any]):
    """aiodataloader with one task per batch instead of two, and a reference to that task."""

    def __init__(self, batch: BatchFunction, max_batch_size: int | None) -> None:
        super().__init__(max_batch_size=max_batch_size)
        self._batch = batch
        self._running: set[asyncio.Task[object]] = set()

    @staticmethod
    def get_cache_key(key: Arguments) -> Arguments:
        """The key itself."""
        return key

    async def batch_load_fn(self, keys: list[Arguments]) -> list[Any]:
        """The results of *keys*; an exception among them belongs to its key alone."""
        task = asyncio.current_task()
        if task is not None:  # aiodataloader keeps no reference, and the loop only a weak one
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        try:
            results = await self._batch(keys)
        except BaseException as error:  # noqa: BLE001 aiodataloader lets a CancelledError hang every caller
            results = [error] * len(keys)
        return [_as_exception(result) for result in results]

    def do_resolve_reject(self, key: Arguments, future: "asyncio.Future[Any]") -> None:
        """Queue *key*; the queue is dispatched at the end of this loop iteration."""
        self._queue.append(Loader(key=key, future=future))
        if len(self._queue) == 1:
            self.loop.call_soon(dispatch_queue, self)


def _as_exception(result: object) -> object:
    """The result; a cancellation becomes an Exception, because aiodataloader raises only those."""
    if isinstance(result, BaseException) and not isinstance(result, Exception):
        return ConnectionAbortedError("The load was cancelled.")
    return result


def _retrieve_exception(loading: "asyncio.Future[Any]") -> None:
    """Mark the exception as retrieved, because every caller may have been cancelled."""
    if not loading.cancelled():
        loading.exception()
