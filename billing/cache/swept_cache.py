"""Swept cache: a bounded cache in the process whose expired values leave memory without being used again."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from cachetools import TTLCache

SWEEP_SECONDS = 60.0

K = TypeVar("K")
V = TypeVar("V")


class SweptCache(TTLCache[K, V]):
    """At most *limit* of what *size_of* counts, the least recently used leave first; each for *ttl* seconds.

    cachetools drops expired values at a write alone; a process without requests would keep them.
    """

    def __init__(self, limit: float, ttl: float, size_of: Callable[[V], float]) -> None:
        super().__init__(limit, ttl, getsizeof=size_of)
        self._next_sweep: asyncio.TimerHandle | None = None

    def __setitem__(self, key: K, value: V) -> None:
        """Store *value*; until all have expired, the event loop sweeps."""
        super().__setitem__(key, value)
        if self._next_sweep is None:
            self._schedule_sweep()

    def _schedule_sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._next_sweep = loop.call_later(min(self.ttl, SWEEP_SECONDS), self._sweep)

    def _sweep(self) -> None:
        self.expire()
        self._next_sweep = None
        if self:
            self._schedule_sweep()
