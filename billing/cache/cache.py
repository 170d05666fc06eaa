"""The read cache's interface.

An entry is valid under the generations it was loaded under, and no others. A generation is a unique
value, never a counter; ``invalidate`` replaces it and does nothing else, so duplicate, late and
reordered events are harmless. A loaded value is stored only if its load lock is still valid and its
generations have not changed. Values are also stored in this process, but every read verifies their
generations in Redis; all reads of one event loop iteration share that command.

Redis unavailable: every read goes to Stripe. Stripe unavailable: the last known value, marked STALE, for
a limited time.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import structlog

from billing.cache.batcher import Batcher
from billing.cache.entries import CacheEntry
from billing.cache.erasures import Erasures
from billing.cache.local_cache import CachedValue, LocalCache
from billing.cache.read_through import (
    CachePolicy,
    EntryValue,
    Load,
    ReadRequest,
    ReadThrough,
    Split,
)
from billing.cache.redis_backend import CacheUnavailable, RedisBackend

log = structlog.get_logger(__name__)


def _unsplit(value: Any) -> tuple[Any, Sequence[EntryValue]]:
    return value, ()


@asynccontextmanager
async def open_cache(url: str, policy: CachePolicy | None = None) -> AsyncIterator["Cache"]:
    """A cache over the Redis at *url*, which may be down."""
    async with aclosing(RedisBackend(url)) as backend:
        cache = Cache(backend, policy or CachePolicy())
        try:
            yield cache
        finally:
            await cache.close()


class Cache:
    """Stripe's responses by entry: ``fetch`` reads them, ``invalidate`` makes them invalid."""

    def __init__(self, backend: RedisBackend, policy: CachePolicy) -> None:
        self._backend = backend
        self._policy = policy
        self._local = LocalCache(policy.local_bytes, policy.stale_if_error_ttl)
        self._erasures = Erasures(backend.redis, policy.stale_if_error_ttl)
        self._read_through = ReadThrough(backend, policy, self._local, self._erasures)
        self._generation_reads: Batcher[tuple[str, ...], Mapping[str, bytes]] = Batcher(
            self._read_generations
        )

    async def fetch(
        self, entry: CacheEntry, load: Load, *, type_: Any = Any, split: Split = _unsplit
    ) -> CachedValue:
        """The value of *entry*; without a valid stored one, from *load* (None: it does not exist).

        Values are stored as JSON and decoded as *type_*. *split* divides the loaded value into the one of
        *entry* and those of other entries; a change of any of these has to replace the generations of
        *entry* too. Raises what *load* raises, unless a last known value may replace an Unavailable.
        """
        cached = self._local.get_fresh(entry.key)
        if cached is not None and await self._is_current(entry, cached):
            return cached
        return await self._read_through.get_or_load(ReadRequest(entry, load, type_, split))

    async def invalidate(self, *generations: str) -> None:
        """Replace *generations*: no later read returns an older state. CacheUnavailable: retry."""
        await self._backend.invalidate(generations)

    async def erase(self, *generations: str) -> None:
        """Invalidate, and show what was loaded so far not even as STALE. CacheUnavailable: retry."""
        await self._erasures.add(generations)
        await self.invalidate(*generations)

    async def invalidate_throttled(self, *generations: str) -> tuple[str, ...]:
        """Replace those of *generations* that were not replaced within a second; returns these.

        Never raises: responses that depend on them are cached for a second only.
        """
        if not generations:
            return ()
        try:
            replaced = await self._backend.invalidate(generations, min_interval=1)
        except CacheUnavailable:
            return ()
        return tuple(name for name, done in zip(generations, replaced, strict=True) if done)

    async def begin_write(self, *generations: str) -> None:
        """Announce a write to Stripe: until its end, nothing that is loaded of these is stored.

        The write intent expires by itself. Without Redis, the webhook of the change invalidates instead.
        """
        try:
            await self._backend.begin_writes(generations, self._policy.write_intent_ttl)
        except CacheUnavailable:
            log.warning("cache.begin_write_failed", generations=generations)

    async def end_write(self, *generations: str) -> None:
        """End the write announced for *generations*, whatever its outcome, and replace them."""
        try:
            await self._backend.invalidate(generations, end_writes=True)
        except CacheUnavailable:
            log.warning("cache.end_write_failed", generations=generations)

    async def generations(self, *names: str) -> tuple[bytes, ...]:
        """The current generations, read in one command per loop iteration; or CacheUnavailable."""
        current = await self._generation_reads.submit(names)
        return tuple([current[name] for name in names])

    async def is_on(self, run_id: str) -> bool:
        """True if the cache uses the Redis server *run_id*; CacheUnavailable if it does not answer."""
        return await self._backend.is_on(run_id)

    @property
    def local_bytes(self) -> int:
        """Estimated memory of the values stored in this process."""
        return self._local.bytes

    async def close(self) -> None:
        """Stop loading."""
        await self._read_through.close()

    async def _read_generations(
        self, requests: Sequence[tuple[str, ...]]
    ) -> Sequence[Mapping[str, bytes]]:
        names = list({name for requested in requests for name in requested})
        return [await self._backend.generations(names)] * len(requests)

    async def _is_current(self, entry: CacheEntry, cached: CachedValue) -> bool:
        try:
            current = await self.generations(*entry.generations)
        except CacheUnavailable:
            return False
        return cached.generations == dict(zip(entry.generations, current, strict=True))
