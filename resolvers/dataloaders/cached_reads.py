"""Reads of one operation: through the cache, with their statistics and the response's cache dependencies."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from billing.budget import Lane
from billing.cache import entries
from billing.cache.entries import CacheEntry
from billing.cache.local_cache import CachedValue, Source
from billing.cache.redis_backend import CacheUnavailable
from billing.errors import ErrorCode, Refused, StripeRejected
from billing.services import Services
from billing.stripe import CallCount, count_calls
from resolvers.dataloaders.stripe_queries import Body, Parts, StripeQuery

UNKNOWN_ID_STATUSES = frozenset({400, 404})  # Stripe's responses to an unknown id or cursor
NOT_FOUND = 404
CURSOR_ARGUMENTS = {"starting_after": "after", "ending_before": "before"}


@dataclass(slots=True)
class ReadStats:
    """Calls to Stripe and sources of the entries read by one operation.

    *hidden_calls* were made for objects that the viewer may not see; counting them would reveal that such
    an object exists. *missed_lookups* counts reads of a page with an unknown cursor.
    """

    stripe_calls: int = 0
    cache_hits: int = 0
    cache_misses: int = 0
    stale: int = 0
    missed_lookups: int = 0
    hidden_calls: list[CallCount] = field(default_factory=list)

    def add(self, cached: CachedValue, calls: int) -> None:
        """Add one entry, which took *calls* calls to Stripe."""
        self.stripe_calls += calls
        self.cache_hits += cached.source is Source.CACHE
        self.cache_misses += cached.source is Source.STRIPE
        self.stale += cached.source is Source.STALE


@dataclass(slots=True)
class CacheDependencies:
    """The cache *generations* under which everything read so far is valid; not *cacheable* if something has none.

    *includes_ledger*: ledger data was read, whose generation is replaced once a second at most.
    *started_at*, by the monotonic clock, is before the first read.
    """

    started_at: float = field(default_factory=time.monotonic)
    generations: dict[str, bytes] = field(default_factory=dict)
    cacheable: bool = True
    includes_ledger: bool = False

    def add(self, generations: Mapping[str, bytes] | None) -> None:
        """Add a dependency on *generations*."""
        if generations is None:
            self.cacheable = False
            return
        for name, value in generations.items():
            if self.generations.setdefault(name, value) != value:
                self.cacheable = False


class CachedReader:
    """Reads for one operation in the budget's *lane*."""

    def __init__(self, services: Services, lane: Lane, stats: ReadStats | None = None) -> None:
        self.services = services
        self.stats = stats or ReadStats()
        self.dependencies = CacheDependencies()
        self._lane = lane

    async def get(self, get: StripeQuery) -> CachedValue:
        """Read through the cache; the value is None if Stripe has no such object."""
        cached, _ = await self.get_with_parts(get)
        return cached

    async def get_with_parts(self, get: StripeQuery) -> tuple[CachedValue, Parts]:
        """As `get`, and the other entries that the response filled, if Stripe was called."""
        loads: list[CallCount] = []
        came: list[tuple[CacheEntry, Any]] = []

        async def load() -> Body | None:
            with count_calls() as sent:
                loads.append(sent)
                return await self._read(get.path, get.params)

        def keep(body: Body) -> tuple[Any, Parts]:
            kept, parts = get.keep(body)
            came.extend(parts)
            return kept, parts

        cached = await self.services.cache.fetch(get.entry, load, trim=keep, decode=get.shape)
        self.stats.add(cached, sum([sent.calls for sent in loads]))
        self.dependencies.add(cached.generations)
        return cached, came

    async def get_if_visible(
        self, get: StripeQuery, is_own: Callable[[Any], bool]
    ) -> CachedValue | None:
        """As `get` if the value satisfies *is_own*; otherwise None, whether it exists or not.

        The two cannot be told apart: both call Stripe, fail when Stripe is unavailable, and leave no trace
        in the statistics.
        """
        apart = CachedReader(self.services, self._lane)
        with count_calls() as sent:
            self.stats.hidden_calls.append(sent)
            cached = await apart.get(get)
            if cached.value and is_own(cached.value):
                self.stats.hidden_calls = [
                    each for each in self.stats.hidden_calls if each is not sent
                ]
                self.stats.add(cached, sent.calls)
                self.dependencies.add(cached.generations)
                return cached
            if cached.source is not Source.STRIPE:
                await self._read(get.path, get.params)
        self.dependencies.cacheable = False
        return None

    async def get_uncached(self, path: str) -> Mapping[str, Any] | None:
        """Read from Stripe, bypassing the cache; the response becomes uncacheable."""
        self.dependencies.cacheable = False
        with count_calls() as sent:
            body = await self._read(path, {})
        self.stats.stripe_calls += sent.calls
        return body

    async def depend_on_ledger(self, *customers: str) -> None:
        """Add a dependency on the ledger's data of *customers*; await it before reading the ledger."""
        self.dependencies.includes_ledger = True
        names = {
            entries.usage(customer) for customer in customers
        } - self.dependencies.generations.keys()
        if not names:
            return
        try:
            standing = await self.services.cache.generations(*names)
        except CacheUnavailable:
            self.dependencies.add(None)
        else:
            self.dependencies.add(dict(zip(names, standing, strict=True)))

    async def _read(self, path: str, params: Mapping[str, Any]) -> Mapping[str, Any] | None:
        try:
            return await self.services.stripe.read(path, params, lane=self._lane)
        except StripeRejected as refusal:
            if refusal.status in UNKNOWN_ID_STATUSES and (
                cursor := CURSOR_ARGUMENTS.keys() & params.keys()
            ):
                self.stats.missed_lookups += 1
                raise unknown_cursor(CURSOR_ARGUMENTS[cursor.pop()]) from refusal
            if refusal.status == NOT_FOUND:
                return None
            if "expand" not in params:
                raise
        # Stripe may reject `expand` for a deleted object, which has nothing to expand.
        return await self._read(path, {name: params[name] for name in params if name != "expand"})


def unknown_cursor(argument: str) -> Refused:
    """The error for a cursor in *argument* that Stripe does not know."""
    return Refused(
        ErrorCode.INVALID_INPUT,
        f"Stripe no longer has what `{argument}` points at; begin with the first page.",
        (argument,),
    )
