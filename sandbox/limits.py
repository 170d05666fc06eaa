"""Stripe's limits, object locks and latency."""

import asyncio
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final
from weakref import WeakValueDictionary

from sandbox.errors import rate_limited
from sandbox.settings import Settings

PER_SECOND: Final = {"live": 100, "sandbox": 25, "endpoint": 25, "search": 20}
# Median seconds of a log-normal delay, and the seconds that each line adds: plausible, not measured.
DELAYS: Final = {"GET": 0.06, "LIST": 0.12, "POST": 0.15, "DELETE": 0.12}
SPREAD: Final = 0.4
DELAY_PER_LINE: Final = 0.001
COUNTED_OUTCOMES: Final = ("calls", "ok", "errors", "limited", "lost", "replayed")


class Limiter:
    """Counts every call and rejects those beyond the account's limits."""

    def __init__(
        self, settings: Settings, seed: int, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.settings, self._now = settings, now
        self.counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        # Token buckets with a capacity of one second: (tokens, time of the count).
        self._buckets: dict[tuple[str, int], tuple[float, float]] = {}
        self._lists = 0
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._rng = random.Random(f"latency:{seed}")  # noqa: S311

    def admit(self, endpoint: str) -> None:
        """Take a token of the account's bucket and one of the endpoint's; StripeError 429 if one is empty."""
        if not self.settings.limits:
            return
        now, buckets = self._now(), self._buckets
        own = PER_SECOND["search" if endpoint.endswith("/search") else "endpoint"]
        needed = (("*", PER_SECOND[self.settings.mode]), (endpoint, own))
        for name, rate in needed:
            tokens, at = buckets.get((name, rate), (0.0, 0.0))
            buckets[name, rate] = (min(rate, tokens + (now - at) * rate), now)
            if buckets[name, rate][0] < 1:
                raise rate_limited("global-rate" if name == "*" else "endpoint-rate")
        for bucket in needed:
            buckets[bucket] = (buckets[bucket][0] - 1, now)

    @asynccontextmanager
    async def slot(self, kind: str, written: str | None, lines: int) -> AsyncIterator[None]:
        """Hold the object's lock or one of the concurrent lists, and wait for the simulated latency."""
        settings, lists = self.settings, kind == "LIST"
        if lists and settings.limits and self._lists >= settings.concurrent_lists:
            raise rate_limited("endpoint-concurrency")
        locked = written if kind in ("POST", "DELETE") else None
        lock = self._locks.setdefault(locked, asyncio.Lock()) if locked else asyncio.Lock()
        try:
            # A free lock needs no timer: this is the hot path of every write.
            timeout = settings.lock_wait if lock.locked() else None
            await asyncio.wait_for(lock.acquire(), timeout)
        except TimeoutError:
            raise rate_limited(None) from None
        self._lists += lists
        try:
            if settings.latency:
                delay = DELAYS[kind] * self._rng.lognormvariate(0, SPREAD)
                await asyncio.sleep(delay + lines * DELAY_PER_LINE)
            yield
        finally:
            self._lists -= lists
            lock.release()

    def report(self) -> dict[str, Any]:
        """Return all counters: total, reads, writes, and by endpoint."""
        endpoints = {
            endpoint: {outcome: counts[outcome] for outcome in COUNTED_OUTCOMES}
            for endpoint, counts in sorted(self.counts.items())
        }
        total = sum(counts["calls"] for counts in endpoints.values())
        reads = sum(
            counts["calls"] for name, counts in endpoints.items() if name.startswith("GET ")
        )
        return {"total": total, "reads": reads, "writes": total - reads, "endpoints": endpoints}
