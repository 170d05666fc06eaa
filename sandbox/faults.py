"""What makes Stripe unfriendly: limits, locks and delays by nature, accidents on order."""

import asyncio
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
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


# Accident → what it does, and what an order may say about it.
ON_REQUEST: Final[Mapping[str, tuple[str, dict[str, Any]]]] = {
    "answer_lost_before": ("the connection breaks, nothing was done", {}),
    "answer_lost_after": ("the work was done and stored, the connection breaks", {}),
    "late_delivery": ("the connection breaks; the work is done `seconds` later", {"seconds": 1.0}),
    "error_500_before": ("500, nothing done, nothing stored", {}),
    "error_500_after": ("the work was done, the stored answer is a 500", {}),
    "partial_500_after": ("half of the lines were applied, the stored answer is a 500", {}),
    "rate_limited": ("429 with Stripe-Rate-Limited-Reason `reason`", {"reason": "endpoint-rate"}),
    "lock_timeout": ("429 lock_timeout without that header", {}),
    "slow": ("takes `seconds` longer", {"seconds": 5.0}),
}
ON_WEBHOOK: Final[Mapping[str, tuple[str, dict[str, Any]]]] = {
    "webhook_drop": ("never sent; found by delivery_success=false", {}),
    "webhook_duplicate": ("sent twice", {}),
    "webhook_delay": ("sent `seconds` later by the account's clock", {"seconds": 60.0}),
    "webhook_reorder": ("the next `times` arrive in reverse, `gap` seconds apart", {"gap": 0.3}),
    "webhook_forge": ("preceded by a forged copy with a wrong signature", {}),
    "old_api_version": ("sent in the shape of `version`", {"version": "2022-11-15"}),
}
PER_SECOND: Final = {"live": 100, "sandbox": 25, "endpoint": 25, "search": 20}
# Median seconds of a log-normal delay, and what each line adds: plausible, not measured.
DELAYS: Final = {"GET": 0.06, "LIST": 0.12, "POST": 0.15, "DELETE": 0.12}
SPREAD: Final = 0.4
DELAY_PER_LINE: Final = 0.001
NO_FAULT: Final[dict[str, Any]] = {"kind": ""}
OUTCOMES: Final = ("calls", "ok", "errors", "limited", "lost", "replayed")


def taken(given: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is *known* with what is *given* in its place; ValueError for anything else."""
    for name, value in given.items():
        if name not in known:
            allowed = ", ".join(known) or "nothing"
            raise ValueError(f"unknown parameter: {name}; what may be given: {allowed}")
        kinds = (int, float) if isinstance(known[name], float) else type(known[name])
        if not isinstance(value, kinds) or isinstance(value, bool) != isinstance(known[name], bool):
            raise ValueError(f"{name} cannot be {value!r}; give something like {known[name]!r}")
    return {**known, **given}


class Faults:
    """The orders that still stand, oldest first.

    Each strikes the next ``times`` requests or events that match, after ``after`` of them: ``match``
    is an endpoint, an event type or ``*``; ``object`` narrows it to an id.
    """

    def __init__(self) -> None:
        self.orders: list[dict[str, Any]] = []

    def order(self, given: dict[str, Any]) -> int:
        """Add a fault and return its number; ValueError for what no such fault can be."""
        accidents, kind = {**ON_REQUEST, **ON_WEBHOOK}, given.get("kind")
        if kind not in accidents:
            raise ValueError(f"unknown fault: {kind}; there are: {', '.join(accidents)}")
        known = {"kind": "", "match": "*", "times": 1, "after": 0, "object": ""}
        self.orders.append(taken(given, known | accidents[kind][1]))
        return len(self.orders)

    def strike(self, table: Mapping[str, Any], name: str, objects: str) -> dict[str, Any]:
        """Return the first standing fault of *table* that strikes here, counted down; or none."""
        for fault in self.orders:
            meant = fault["kind"] in table and fault["match"] in ("*", name)
            if meant and fault["object"] in objects:
                fault["after"] -= 1
                if fault["after"] < 0:
                    fault["times"] -= 1
                    self.orders = [order for order in self.orders if order["times"] > 0]
                    return fault
        return NO_FAULT


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
    async def turn(self, kind: str, written: str | None, lines: int) -> AsyncIterator[None]:
        """Take as long as Stripe might, as the object's one writer or among the running lists."""
        settings, lists = self.settings, kind == "LIST"
        if lists and settings.limits and self._lists >= settings.concurrent_lists:
            raise limited("endpoint-concurrency")
        alone = written if kind in ("POST", "DELETE") else None
        lock = self._locks.setdefault(alone, asyncio.Lock()) if alone else asyncio.Lock()
        try:
            # A free lock needs no timer: this is the hot path of every write.
            patience = settings.lock_wait if lock.locked() else None
            await asyncio.wait_for(lock.acquire(), patience)
        except TimeoutError:
            raise limited(None) from None
        self._lists += lists
        try:
            if settings.latency:
                drawn = DELAYS[kind] * self._dice.lognormvariate(0, SPREAD)
                await asyncio.sleep(drawn + lines * DELAY_PER_LINE)
            yield
        finally:
            self._lists -= lists
            lock.release()

    def report(self) -> dict[str, Any]:
        """Return every counter: in all, reads and writes, and by endpoint."""
        endpoints = {
            endpoint: {outcome: counts[outcome] for outcome in OUTCOMES}
            for endpoint, counts in sorted(self.counts.items())
        }
        total = sum(each["calls"] for each in endpoints.values())
        reads = sum(each["calls"] for name, each in endpoints.items() if name.startswith("GET "))
        return {"total": total, "reads": reads, "writes": total - reads, "endpoints": endpoints}
