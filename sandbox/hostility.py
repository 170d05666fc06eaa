"""What makes Stripe unfriendly: limits, locks and delays by nature, accidents on order."""

import asyncio
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from weakref import WeakValueDictionary

from sandbox.errors import limited


@dataclass(slots=True)
class Settings:
    """Seconds where it is a time; ``retry_scale`` and ``duplicates`` are factors of one."""

    limits: bool = True
    latency: bool = True
    mode: str = "live"
    concurrent_lists: int = 10
    lock_wait: float = 2.0
    search_lag: int = 20
    retry_scale: float = 1 / 600
    duplicates: float = 0.01
    shuffle: float = 0.05
    webhook_timeout: float = 10.0


ON_REQUEST: Final = {
    "answer_lost_before": "the connection breaks, nothing was done",
    "answer_lost_after": "the work was done and stored, the connection breaks",
    "late_delivery": "the connection breaks; the request arrives `seconds` later",
    "error_500_before": "500, nothing done, nothing stored",
    "error_500_after": "the work was done, the stored answer is a 500",
    "partial_500_after": "half of the lines were applied, the stored answer is a 500",
    "rate_limited": "429 with Stripe-Rate-Limited-Reason `reason`",
    "lock_timeout": "429 lock_timeout without that header",
    "slow": "takes `seconds` longer",
}
ON_WEBHOOK: Final = {
    "webhook_drop": "never sent; found by delivery_success=false",
    "webhook_duplicate": "sent twice",
    "webhook_delay": "sent `seconds` later by the account's clock",
    "webhook_reorder": "the next `times` events of a kind arrive in reverse, `gap` seconds apart",
    "webhook_forge": "preceded by a forged copy with a wrong signature",
    "old_api_version": "sent in the shape of `version` (2022-11-15)",
}
PER_SECOND: Final = {"live": 100, "sandbox": 25, "endpoint": 25, "search": 20}
# Median seconds of a log-normal delay, and what each line adds: plausible, not measured.
DELAYS: Final = {"GET": 0.06, "LIST": 0.12, "POST": 0.15, "DELETE": 0.12}
SPREAD: Final = 0.4
DELAY_PER_LINE: Final = 0.001
OUTCOMES: Final = ("calls", "ok", "errors", "limited", "lost", "replayed")


@dataclass(slots=True)
class Fault:
    """An accident on order for the next *times* requests or events, after *after* of them.

    *match* is an endpoint, an event type or ``*``; *object* narrows it to an id.
    """

    kind: str
    match: str = "*"
    times: int = 1
    after: int = 0
    object: str = ""
    params: dict[str, Any] = field(default_factory=dict)


class Faults:
    """The orders that still stand, oldest first."""

    def __init__(self) -> None:
        self.orders: list[Fault] = []

    def order(self, kind: str, **more: Any) -> int:
        """Add a fault and return its number; ValueError for an unknown kind."""
        if kind not in ON_REQUEST | ON_WEBHOOK:
            raise ValueError(f"unknown fault: {kind}")
        known = {key: more.pop(key) for key in ("match", "times", "after", "object") if key in more}
        self.orders.append(Fault(kind, params=more, **known))
        return len(self.orders)

    def strike(self, table: Mapping[str, str], name: str, objects: str) -> Fault | None:
        """Return the first standing fault of *table* that strikes here, counted down."""
        for fault in self.orders:
            if fault.kind in table and fault.match in ("*", name) and fault.object in objects:
                fault.after -= 1
                if fault.after < 0:
                    fault.times -= 1
                    self.orders = [order for order in self.orders if order.times > 0]
                    return fault
        return None


class Limiter:
    """Counts every call and refuses those beyond the account's limits."""

    def __init__(
        self, settings: Settings, seed: int, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.settings, self._now = settings, now
        self.counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        # Token buckets that hold one second's worth: (tokens, when they were counted).
        self._buckets: dict[tuple[str, int], tuple[float, float]] = {}
        self._lists = 0
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._dice = random.Random(f"latency:{seed}")  # noqa: S311

    def admit(self, endpoint: str) -> None:
        """Take a token of the account's bucket and one of the endpoint's; StripeError 429 without."""
        if not self.settings.limits:
            return
        now, buckets = self._now(), self._buckets
        own = PER_SECOND["search" if endpoint.endswith("/search") else "endpoint"]
        wanted = (("*", PER_SECOND[self.settings.mode]), (endpoint, own))
        for name, rate in wanted:
            tokens, at = buckets.get((name, rate), (0.0, 0.0))
            buckets[name, rate] = (min(rate, tokens + (now - at) * rate), now)
            if buckets[name, rate][0] < 1:
                raise limited("global-rate" if name == "*" else "endpoint-rate")
        for each in wanted:
            buckets[each] = (buckets[each][0] - 1, now)

    @asynccontextmanager
    async def turn(self, name: str | None, *, listing: bool) -> AsyncIterator[None]:
        """Hold the object *name* (one writer each) or a place among the running lists."""
        if listing and self.settings.limits and self._lists >= self.settings.concurrent_lists:
            raise limited("endpoint-concurrency")
        lock = self._locks.setdefault(name, asyncio.Lock()) if name else asyncio.Lock()
        try:
            # A free lock needs no timer: this is the hot path of every write.
            patience = self.settings.lock_wait if lock.locked() else None
            await asyncio.wait_for(lock.acquire(), patience)
        except TimeoutError:
            raise limited(None) from None
        self._lists += listing
        try:
            yield
        finally:
            self._lists -= listing
            lock.release()

    async def delay(self, kind: str, lines: int) -> None:
        """Take as long as Stripe might for this *kind* of call."""
        if self.settings.latency:
            drawn = DELAYS[kind] * self._dice.lognormvariate(0, SPREAD)
            await asyncio.sleep(drawn + lines * DELAY_PER_LINE)

    def report(self) -> dict[str, Any]:
        """Return every counter: in all, reads and writes, and by endpoint."""
        endpoints = {
            endpoint: {outcome: counts[outcome] for outcome in OUTCOMES}
            for endpoint, counts in sorted(self.counts.items())
        }
        total = sum(each["calls"] for each in endpoints.values())
        reads = sum(each["calls"] for name, each in endpoints.items() if name.startswith("GET "))
        return {"total": total, "reads": reads, "writes": total - reads, "endpoints": endpoints}
