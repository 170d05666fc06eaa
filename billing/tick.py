"""Gather what one turn of the event loop asks for, and ask for it once."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


class Tick(Generic[Q, A]):
    """Questions of one loop tick, answered together by *answer* (one answer a question, in order).

    *answer* begins after all of them were asked. A cancelled asker takes nobody else along.
    """

    def __init__(self, answer: Callable[[Sequence[Q]], Awaitable[Sequence[A]]]) -> None:
        self._answer = answer
        self._asked: list[tuple[Q, asyncio.Future[A]]] = []
        self._running: set[asyncio.Task[None]] = set()

    async def ask(self, question: Q) -> A:
        """The answer to *question*, or the error that its whole batch met."""
        loop = asyncio.get_running_loop()
        if not self._asked:
            loop.call_soon(self._send)
        future: asyncio.Future[A] = loop.create_future()
        self._asked.append((question, future))
        return await future

    def _send(self) -> None:
        asked, self._asked = self._asked, []
        task = asyncio.get_running_loop().create_task(self._settle(asked))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _settle(self, asked: list[tuple[Q, asyncio.Future[A]]]) -> None:
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
