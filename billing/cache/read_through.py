"""Read-through: a value that the process lacks is read from Redis, or loaded from Stripe and stored.

Each process runs one load of an entry at a time, and a load lock in Redis allows one over all processes.
A change of the entry's generations voids the lock: the load returns its value to its callers, and the
value is not stored.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import structlog

from billing.cache.batcher import Batcher
from billing.cache.entries import CacheEntry
from billing.cache.erasures import Erasures
from billing.cache.local_cache import CachedValue, LocalCache, Source
from billing.cache.redis_backend import (
    CacheUnavailable,
    FillRequest,
    Lookup,
    LookupState,
    RedisBackend,
)
from billing.cache.single_flight import SingleFlight
from billing.errors import ShareUsed, Unavailable

log = structlog.get_logger(__name__)

Load = Callable[[], Awaitable[Any | None]]
EntryValue = tuple[CacheEntry, Any]
Split = Callable[[Any], tuple[Any, Sequence[EntryValue]]]

# The lookup without Redis: no lock, so other processes may load as well.
EMPTY_LOOKUP = Lookup(LookupState.MISS, (), "", b"", 0, 0)
MAX_POLL_SECONDS = 0.1  # longest pause between lookups while another process loads


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """Lifetimes in seconds, and the size of the process's local cache in bytes.

    A value is fresh for *fresh_ttl*, unless its entry has its own; then usable, while one reader
    refreshes it, until *usable_ttl* or three times its fresh lifetime if that is longer. Until
    *stale_if_error_ttl* it is served as STALE when Stripe does not answer within *load_timeout*.
    Absence is believed for *absent_ttl*.

    Webhooks report changes at once, and the poll for undelivered events within ten minutes. The lifetimes
    are for changes that both have missed, and a refresh costs a read that Stripe rations.
    """

    fresh_ttl: float = 300
    usable_ttl: float = 180
    stale_if_error_ttl: float = 3600
    absent_ttl: float = 5
    jitter: float = 0.1
    load_lock_ttl: float = 10
    load_timeout: float = 4
    failure_cooldown: float = 1
    write_intent_ttl: float = 60
    local_bytes: int = 64 << 20


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """The arguments of ``Cache.fetch``."""

    entry: CacheEntry
    load: Load
    type_: Any
    split: Split


class ReadThrough:
    """Reads entries into the *local* cache, from *backend* or by loading them."""

    def __init__(
        self, backend: RedisBackend, policy: CachePolicy, local: LocalCache, erasures: Erasures
    ) -> None:
        self._backend = backend
        self._policy = policy
        self._local = local
        self._erasures = erasures
        self._single_flight: SingleFlight[CachedValue] = SingleFlight()
        self._locking_lookups: Batcher[CacheEntry, Lookup] = Batcher(
            partial(backend.lookup, lock_ttl=policy.load_lock_ttl)
        )
        self._plain_lookups: Batcher[CacheEntry, Lookup] = Batcher(backend.lookup)

    async def get_or_load(self, request: ReadRequest) -> CachedValue:
        """The value, as of this call or later; raises as ``Cache.fetch`` does.

        Redis usually has a value that the process never had. A plain read takes no load lock, so a
        cancelled caller blocks nobody and no single-flight task is needed. A value that the process had
        has changed, so Redis has no valid one either.
        """
        known = self._local.get(request.entry.key) is not None
        cached = None if known else await self._read_fresh(request)
        return cached or await self._single_flight.run(
            request.entry.key, partial(self._load_exclusively, request)
        )

    async def close(self) -> None:
        """Stop loading."""
        await self._single_flight.close()

    async def _read_fresh(self, request: ReadRequest) -> CachedValue | None:
        """The value in Redis, if it is fresh."""
        try:
            lookup = await self._plain_lookups.submit(request.entry)
        except CacheUnavailable:
            return None
        cached = _decode_last_value(request, lookup) if lookup.state is LookupState.HIT else None
        return cached and self._store_locally(request, lookup, cached)

    async def _load_exclusively(self, request: ReadRequest) -> CachedValue:
        try:
            lookup = await self._acquire_or_wait(request)
        except CacheUnavailable:
            lookup = EMPTY_LOOKUP
        if lookup.state in (LookupState.HIT, LookupState.STALE):
            cached = _decode_last_value(request, lookup)
            if cached is not None:
                if lookup.lock_token:
                    self._single_flight.start(self._load_and_store(request, lookup))
                return self._store_locally(request, lookup, cached)
        if lookup.state is not LookupState.FAILED:
            return await self._load_or_last_known(request, lookup)
        known = self._last_known(request, lookup)
        if known is None or await self._is_erased(request, known):
            raise Unavailable("Stripe did not answer a moment ago; try again.", retry_after=1)
        return known

    async def _acquire_or_wait(self, request: ReadRequest) -> Lookup:
        """A lookup that acquires the load lock, or waits until another process releases or loses it."""
        deadline = time.monotonic() + self._policy.load_timeout
        pause = 0.005
        while True:
            lookup = await self._locking_lookups.submit(request.entry)
            if lookup.state is not LookupState.WAIT:
                return lookup
            if time.monotonic() > deadline and self._last_known(request, lookup):
                return replace(lookup, state=LookupState.FAILED)
            await asyncio.sleep(pause)
            pause = min(2 * pause, MAX_POLL_SECONDS)

    async def _load_or_last_known(self, request: ReadRequest, lookup: Lookup) -> CachedValue:
        known = self._last_known(request, lookup)
        load = self._single_flight.start(self._load_and_store(request, lookup))
        try:
            async with asyncio.timeout(self._policy.load_timeout if known else None):
                return await asyncio.shield(load)
        except TimeoutError:
            error = Unavailable("Stripe has not answered in time; try again.", retry_after=1)
        except Unavailable as failure:
            error = failure
        if known is None or await self._is_erased(request, known):
            raise error
        return known

    async def _load_and_store(self, request: ReadRequest, lookup: Lookup) -> CachedValue:
        """Load the value, and store it unless its generations have changed since *lookup*."""
        loaded_at = datetime.now(UTC)
        try:
            loaded = await request.load()
            value, others = (None, ()) if loaded is None else request.split(loaded)
        except BaseException as error:
            await self._release_lock(request.entry, lookup, error)
            raise
        fill = self._fill_request(request, lookup, value, others, loaded_at)
        stored = EMPTY_LOOKUP
        if await self._store(fill):
            stored = replace(lookup, fresh_seconds=fill.fresh_ttl)
        cached = CachedValue(value, Source.STRIPE, loaded_at, None)
        return self._store_locally(request, replace(stored, last_value=fill.value), cached)

    async def _release_lock(self, entry: CacheEntry, lookup: Lookup, error: BaseException) -> None:
        shared = isinstance(error, Unavailable) and not isinstance(error, ShareUsed)
        cooldown = self._policy.failure_cooldown if shared else 0
        with suppress(CacheUnavailable):
            if lookup.lock_token:
                await self._backend.release_load_lock(entry, lookup.lock_token, cooldown)

    def _fill_request(
        self,
        request: ReadRequest,
        lookup: Lookup,
        value: Any | None,
        others: Sequence[EntryValue],
        loaded_at: datetime,
    ) -> FillRequest:
        policy = self._policy
        fresh = policy.absent_ttl if value is None else request.entry.fresh_ttl or policy.fresh_ttl
        return FillRequest(
            entry=request.entry,
            lookup=lookup,
            value=request.entry.encode(value, loaded_at),
            fresh_ttl=fresh * random.uniform(1 - policy.jitter, 1 + policy.jitter),  # noqa: S311 spread
            usable_ttl=max(3 * fresh, 0 if value is None else policy.usable_ttl),
            ttl=policy.stale_if_error_ttl,
            others=[(other, other.encode(part, loaded_at)) for other, part in others],
        )

    async def _store(self, fill: FillRequest) -> bool:
        with suppress(CacheUnavailable):
            return bool(fill.lookup.lock_token) and await self._backend.fill(fill)
        return False

    def _store_locally(
        self, request: ReadRequest, lookup: Lookup, cached: CachedValue
    ) -> CachedValue:
        """Store *cached* under the generations of *lookup*; without any, only as the last known value."""
        if lookup.generations:
            generations = dict(zip(request.entry.generations, lookup.generations, strict=True))
            cached = replace(cached, generations=generations)
        self._local.put(
            request.entry.key,
            cached,
            fresh_seconds=lookup.fresh_seconds,
            json_bytes=len(lookup.last_value),
        )
        return cached

    async def _is_erased(self, request: ReadRequest, known: CachedValue) -> bool:
        return await self._erasures.is_erased(request.entry.generations, known.fetched_at)

    def _last_known(self, request: ReadRequest, lookup: Lookup) -> CachedValue | None:
        """The newest value from Redis or the process, within the policy's ``stale_if_error_ttl``."""
        known = [_decode_last_value(request, lookup), self._local.get(request.entry.key)]
        oldest = datetime.now(UTC) - timedelta(seconds=self._policy.stale_if_error_ttl)
        usable = [cached for cached in known if cached is not None and cached.fetched_at > oldest]
        newest = max(usable, key=lambda cached: cached.fetched_at, default=None)
        return newest and replace(newest, source=Source.STALE, generations=None)


def _decode_last_value(request: ReadRequest, lookup: Lookup) -> CachedValue | None:
    """The value stored in Redis; None also if another version stored other fields."""
    found = request.entry.decode(lookup.last_value, request.type_)
    return None if found is None else CachedValue(found[0], Source.CACHE, found[1], None)
