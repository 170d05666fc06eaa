"""Notices a shutdown signal while the process still serves."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def on_shutdown_signal(
    callback: Callable[[], None],
    *,
    announce: Callable[[], None] = lambda: None,
    delay: float = 0,
) -> Iterator[None]:
    """Call *callback* in the event loop at SIGTERM or SIGINT, in addition to the server's own handling.

    With a *delay* in seconds both wait for so long after *announce*, or for a second signal.

    The servers notify the application too late: uvicorn after open connections have ended, which an event
    stream never does, and arq after its jobs.
    """
    loop = asyncio.get_running_loop()
    previous = {number: signal.getsignal(number) for number in SIGNALS}

    announced: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if announced or not delay:
            shut_down(number, frame)
            return
        announced.append(number)
        loop.call_soon_threadsafe(announce)
        loop.call_soon_threadsafe(loop.call_later, delay, shut_down, number, frame)

    def shut_down(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(callback)
        handler = previous[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    for number in SIGNALS:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
