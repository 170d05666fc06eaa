"""Local cache: decoded values in the process, whose generations are verified before each use."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from billing.cache.swept_cache import SweptCache

MEMORY_PER_JSON_BYTE = 3  # records take 2.5 bytes a byte of their JSON (benchmarks/reads.py)


class Source(StrEnum):
    """Source that a value from Stripe was read from."""

    STRIPE = "STRIPE"
    CACHE = "CACHE"
    STALE = "STALE"


@dataclass(frozen=True, slots=True)
class CachedValue:
    """A decoded *value* (None: it does not exist) and the time at which its load began.

    It is valid under *generations*; None when it may not be used after this read.
    """

    value: Any | None
    source: Source
    fetched_at: datetime
    generations: Mapping[str, bytes] | None


class _Stored(NamedTuple):
    cached: CachedValue
    fresh_until: float
    bytes: int


class LocalCache:
    """The most recently used values, at most *limit* bytes of them, each for *ttl* seconds."""

    def __init__(self, limit: int, ttl: float) -> None:
        self._values: SweptCache[str, _Stored] = SweptCache(limit, ttl, lambda stored: stored.bytes)

    def put(self, key: str, cached: CachedValue, *, fresh_seconds: float, json_bytes: int) -> None:
        """Store *cached*, fresh for *fresh_seconds* while its generations are current."""
        value = cached if cached.source is Source.CACHE else replace(cached, source=Source.CACHE)
        fresh_until = time.monotonic() + (0 if cached.generations is None else fresh_seconds)
        stored = _Stored(value, fresh_until, MEMORY_PER_JSON_BYTE * json_bytes)
        if stored.bytes <= self._values.maxsize:
            self._values[key] = stored
        else:
            self._values.pop(key, None)

    @property
    def bytes(self) -> int:
        """Estimated memory of all values."""
        return round(self._values.currsize)

    def get(self, key: str) -> CachedValue | None:
        """The last stored value, fresh or not."""
        stored = self._values.get(key)
        return stored and stored.cached

    def get_fresh(self, key: str) -> CachedValue | None:
        """The value of *key* if it is fresh; its generations have yet to be verified."""
        stored = self._values.get(key)
        return stored.cached if stored and time.monotonic() < stored.fresh_until else None
