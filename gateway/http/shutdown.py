"""Notices a shutdown signal while the server still serves requests."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def on_shutdown_signal(shutting_down: asyncio.Event) -> Iterator[None]:
    """Set *shutting_down* at SIGTERM or SIGINT, in addition to the server's own handling.

    uvicorn waits for open connections before it notifies the application, and an event stream would
    keep it waiting for ever.
    """
    loop = asyncio.get_running_loop()
    previous = {number: signal.getsignal(number) for number in SIGNALS}

    def on_signal(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(shutting_down.set)
        handler = previous[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    for number in SIGNALS:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
