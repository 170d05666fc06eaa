"""Hearing that the process must go, while it still serves."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def heard(ending: asyncio.Event) -> Iterator[None]:
    """Set *ending* at the first signal to go, beside whatever the server does about it.

    uvicorn waits for open connections before it tells the application, and an event stream would
    keep it waiting for ever.
    """
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def hear(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(ending.set)
        then = before[signal.Signals(number)]
        if callable(then):
            then(number, frame)

    for number in SIGNALS:
        signal.signal(number, hear)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
