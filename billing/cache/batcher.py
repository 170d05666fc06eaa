"""Gather what one turn of the event loop asks for, and ask for it once."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


class Tick(Generic[Q, A]):
    """Questions of one loop tick, answered together by *answer* (one answer a question, in order).

    *answer* begins after all of them were asked, and one batch at a time: those who ask meanwhile are
    the next one, so the busier the loop, the fewer calls for each question. A batch of fewer than *enough*
    waits up to *wait* seconds for more. A cancelled asker takes nobody else along.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Q]], Awaitable[Sequence[A]]],
        *,
        wait: float = 0,
        enough: int = 1,
    ) -> None:
        self._answer = answer
        self._wait = wait
        self._enough = enough
        self._full = asyncio.Event()
        self._asked: list[tuple[Q, asyncio.Future[A]]] = []
        self._answering: asyncio.Task[None] | None = None

    def ask(self, question: Q) -> "asyncio.Future[A]":
        """The answer to *question*, or the error that its whole batch met."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[A] = loop.create_future()
        self._asked.append((question, future))
        if len(self._asked) == self._enough:
            self._full.set()
        if self._answering is None:
            self._answering = loop.create_task(self._answer_all())
        return future

    async def _answer_all(self) -> None:
        await asyncio.sleep(0)  # the rest of this tick asks as well
        try:
            while self._asked:
                if len(self._asked) < self._enough:
                    await self._gather()
                asked, self._asked = self._asked, []
                await self._settle(asked)
        finally:
            self._answering = None
            if self._asked:  # cancelled in between
                self._answering = asyncio.get_running_loop().create_task(self._answer_all())

    async def _gather(self) -> None:
        self._full.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._wait):
                await self._full.wait()

    async def _settle(self, asked: list[tuple[Q, "asyncio.Future[A]"]]) -> None:
        try:
            answers = await self._answer([question for question, _ in asked])
        except BaseException as error:  # a cancelled batch must not leave its askers waiting
            reason = error if isinstance(error, Exception) else ConnectionAbortedError(str(error))
            for _, future in asked:
                if not future.done():
                    future.set_exception(reason)
            if not isinstance(error, Exception):
                raise
            return
        for (_, future), answer in zip(asked, answers, strict=True):
            if not future.done():
                future.set_result(answer)
