"""Batcher: collects the requests of one event loop iteration and executes them together."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

Q = TypeVar("Q")
R = TypeVar("R")


class Batcher(Generic[Q, R]):
    """Executes requests in batches with *execute*, which returns one result for each request, in order.

    A batch starts after all of its requests were submitted, and batches run one at a time: requests
    that arrive meanwhile form the next one, so a busier loop needs fewer calls per request. A batch
    smaller than *target_size* waits up to *linger* seconds for more. Cancelling a caller does not affect
    the others.
    """

    def __init__(
        self,
        execute: Callable[[Sequence[Q]], Awaitable[Sequence[R]]],
        *,
        linger: float = 0,
        target_size: int = 1,
    ) -> None:
        self._execute = execute
        self._linger = linger
        self._target_size = target_size
        self._full = asyncio.Event()
        self._pending: list[tuple[Q, asyncio.Future[R]]] = []
        self._runner: asyncio.Task[None] | None = None

    def submit(self, request: Q) -> "asyncio.Future[R]":
        """A future of the result of *request*, or of the error of its batch."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._pending.append((request, future))
        if len(self._pending) == self._target_size:
            self._full.set()
        if self._runner is None:
            self._runner = loop.create_task(self._run_batches())
        return future

    async def _run_batches(self) -> None:
        await asyncio.sleep(0)  # until the rest of this iteration has submitted
        try:
            while self._pending:
                if len(self._pending) < self._target_size:
                    await self._wait_for_more()
                batch, self._pending = self._pending, []
                await self._run_batch(batch)
        finally:
            self._runner = None
            if self._pending:  # cancelled in between
                self._runner = asyncio.get_running_loop().create_task(self._run_batches())

    async def _wait_for_more(self) -> None:
        self._full.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._linger):
                await self._full.wait()

    async def _run_batch(self, batch: list[tuple[Q, "asyncio.Future[R]"]]) -> None:
        try:
            results = await self._execute([request for request, _ in batch])
        except BaseException as error:  # a cancelled batch must not leave its callers waiting
            reason = error if isinstance(error, Exception) else ConnectionAbortedError(str(error))
            for _, future in batch:
                if not future.done():
                    future.set_exception(reason)
            if not isinstance(error, Exception):
                raise
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)
