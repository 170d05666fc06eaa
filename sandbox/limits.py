"""What Stripe rations: requests a second, slow lists at once, one writer an object. And its delays."""

import asyncio
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from sandbox.errors import rate_limited
from sandbox.settings import Settings

GLOBAL_PER_SECOND: Final = {"live": 100, "sandbox": 25}
ENDPOINT_PER_SECOND: Final = 25
SEARCH_PER_SECOND: Final = 20
# Median seconds and spread of a log-normal delay: plausible, not measured.
DELAYS: Final = {
    "GET": (0.06, 0.4),
    "LIST": (0.12, 0.45),
    "POST": (0.15, 0.4),
    "DELETE": (0.12, 0.4),
}
DELAY_PER_LINE: Final = 0.001
OUTCOMES: Final = ("calls", "ok", "errors", "limited", "lost", "replayed")


@dataclass(slots=True)
class Bucket:
    """A token bucket that holds one second's worth."""

    rate: int
    tokens: float = field(default=0.0)
    at: float = field(default=0.0)

    def refill(self, now: float) -> bool:
        """Tell whether a token is there, counting what has dripped in since."""
        self.tokens = min(self.rate, self.tokens + (now - self.at) * self.rate)
        self.at = now
        return self.tokens >= 1


class Limiter:
    """Counts every call and refuses those beyond the account's limits."""

    def __init__(
        self, settings: Settings, seed: int, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.settings = settings
        self._now = now
        self.counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._buckets: dict[str, Bucket] = {}
        self._lists = 0
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}
        self._dice = random.Random(f"latency:{seed}")  # noqa: S311

    def admit(self, endpoint: str) -> None:
        """Take one token of the account's bucket and the endpoint's; StripeError 429 without."""
        if not self.settings.limits:
            return
        own = SEARCH_PER_SECOND if endpoint.endswith("/search") else ENDPOINT_PER_SECOND
        total = GLOBAL_PER_SECOND[self.settings.mode]
        now = self._now()
        taken = []
        for name, rate, reason in (("*", total, "global-rate"), (endpoint, own, "endpoint-rate")):
            bucket = self._buckets.setdefault(f"{name}:{rate}", Bucket(rate))
            if not bucket.refill(now):
                raise rate_limited(reason)
            taken.append(bucket)
        for bucket in taken:
            bucket.tokens -= 1

    @asynccontextmanager
    async def turn(self, name: str | None, *, listing: bool) -> AsyncIterator[None]:
        """Hold the object *name* (one writer each) or a place among the running lists."""
        if listing:
            if self.settings.limits and self._lists >= self.settings.concurrent_lists:
                raise rate_limited("endpoint-concurrency")
            self._lists += 1
            try:
                yield
            finally:
                self._lists -= 1
        elif name is None:
            yield
        else:
            async with self._locked(name):
                yield

    async def delay(self, kind: str, lines: int) -> None:
        """Take as long as Stripe might for this *kind* of call."""
        if self.settings.latency:
            median, spread = DELAYS[kind]
            drawn = median * self._dice.lognormvariate(0, spread)
            await asyncio.sleep(drawn + lines * DELAY_PER_LINE)

    def report(self) -> dict[str, Any]:
        """Return every counter: in all, reads and writes, and by endpoint."""
        calls = {endpoint: counts["calls"] for endpoint, counts in self.counts.items()}
        reads = sum(n for endpoint, n in calls.items() if endpoint.startswith("GET "))
        total = sum(calls.values())
        endpoints = {
            endpoint: {outcome: counts[outcome] for outcome in OUTCOMES}
            for endpoint, counts in sorted(self.counts.items())
        }
        return {"total": total, "reads": reads, "writes": total - reads, "endpoints": endpoints}

    @asynccontextmanager
    async def _locked(self, name: str) -> AsyncIterator[None]:
        lock, users = self._locks.get(name, (asyncio.Lock(), 0))
        self._locks[name] = (lock, users + 1)
        try:
            try:
                # A free lock needs no timer: this is the hot path of every write.
                patience = self.settings.lock_wait if lock.locked() else None
                await asyncio.wait_for(lock.acquire(), patience)
            except TimeoutError:
                raise rate_limited(None) from None
            try:
                yield
            finally:
                lock.release()
        finally:
            lock, users = self._locks.pop(name)
            if users > 1:
                self._locks[name] = (lock, users - 1)
