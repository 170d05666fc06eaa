"""Reads of one operation, with their statistics and the cache dependencies of its response."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from billing.budget import Lane
from billing.cache import entries
from billing.cache.local_cache import Source
from billing.cache.redis_backend import CacheUnavailable
from billing.services import Services
from billing.stripe import CallCount, count_calls
from billing.stripe.reader import ReadResult, UnknownCursor
from billing.stripe.resource import Resource

T = TypeVar("T")


@dataclass(slots=True)
class ReadStats:
    """Calls to Stripe and sources of the entries read by one operation.

    *hidden_calls* were made for objects that the viewer may not see; counting them would reveal that such
    an object exists. *missed_lookups* counts reads of a page with an unknown
    cursor, and of pages not read yet.
    """

    stripe_calls: int = 0
    cache_hits: int = 0
    cache_misses: int = 0
    stale: int = 0
    missed_lookups: int = 0
    hidden_calls: list[CallCount] = field(default_factory=list)

    def add(self, source: Source, calls: int) -> None:
        """Add one entry, which took *calls* calls to Stripe."""
        self.stripe_calls += calls
        self.cache_hits += source is Source.CACHE
        self.cache_misses += source is Source.STRIPE
        self.stale += source is Source.STALE


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
        self.stats = stats or ReadStats()
        self.dependencies = CacheDependencies()
        self._reader = services.stripe_reader
        self._cache = services.cache
        self._lane = lane

    async def get(self, resource: Resource[T]) -> ReadResult[T]:
        """Read *resource*."""
        # A cursor counts as unknown until it proves valid: an operation that fails does not wait for all reads.
        has_cursor = resource.cursor_argument is not None
        self.stats.missed_lookups += has_cursor
        try:
            result = await self._reader.get(resource, self._lane)
        except UnknownCursor:
            raise
        except BaseException:
            self.stats.missed_lookups -= has_cursor
            raise
        self.stats.missed_lookups -= has_cursor
        if resource.is_cached:
            self.stats.add(result.source, result.calls)
        else:
            self.stats.stripe_calls += result.calls
        self.dependencies.add(result.generations)
        return result

    async def get_if_visible(
        self, resource: Resource[T], is_visible: Callable[[T], bool]
    ) -> ReadResult[T] | None:
        """As `get` if the value exists and *is_visible*; otherwise None.

        The viewer cannot tell an invisible object from an absent one: both call Stripe, fail when Stripe is
        unavailable, and leave no trace in the statistics.
        """
        with count_calls() as count:
            self.stats.hidden_calls.append(count)
            result = await self._reader.get(resource, self._lane)
            if result.value is not None and is_visible(result.value):
                self.stats.hidden_calls = [
                    hidden for hidden in self.stats.hidden_calls if hidden is not count
                ]
                self.stats.add(result.source, count.calls)
                self.dependencies.add(result.generations)
                return result
            if result.source is not Source.STRIPE:
                await self._reader.get_fresh(resource, self._lane)
        self.dependencies.cacheable = False
        return None

    async def depend_on_ledger(self, *customers: str) -> None:
        """Add a dependency on the ledger's data of *customers*; await it before reading the ledger."""
        self.dependencies.includes_ledger = True
        names = {entries.usage(customer) for customer in customers}
        names -= self.dependencies.generations.keys()
        if not names:
            return
        try:
            generations = await self._cache.generations(*names)
        except CacheUnavailable:
            self.dependencies.add(None)
        else:
            self.dependencies.add(dict(zip(names, generations, strict=True)))
