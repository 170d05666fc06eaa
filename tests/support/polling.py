"""Waiting for the thing itself instead of for a while."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def until(read: Callable[[], Awaitable[T]], wanted: T, seconds: float = 10) -> None:
    """Ask *read* again and again until it answers *wanted*; AssertionError after *seconds*."""
    give_up = time.monotonic() + seconds
    while (found := await read()) != wanted:
        assert time.monotonic() < give_up, f"still {found!r}, not {wanted!r}"
        await asyncio.sleep(0.02)
