"""Local cache: decoded values in the process, whose generations are verified before each use."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from billing.cache.lru import Lru

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


class LocalCache:
    """The most recently used values, at most *limit* bytes of them."""

    def __init__(self, limit: int) -> None:
        self._values: Lru[tuple[CachedValue, float]] = Lru(limit)

    def put(self, key: str, cached: CachedValue, *, fresh_seconds: float, json_bytes: int) -> None:
        """Store *cached*, fresh for *fresh_seconds* while its generations are current."""
        value = cached if cached.source is Source.CACHE else replace(cached, source=Source.CACHE)
        fresh_until = time.monotonic() + (0 if cached.generations is None else fresh_seconds)
        self._values.put(key, (value, fresh_until), MEMORY_PER_JSON_BYTE * json_bytes)

    @property
    def bytes(self) -> int:
        """Estimated memory of all values."""
        return self._values.bytes

    def get(self, key: str) -> CachedValue | None:
        """The last stored value, fresh or not."""
        found = self._values.get(key)
        return None if found is None else found[0]

    def get_fresh(self, key: str) -> CachedValue | None:
        """The value of *key* if it is fresh; its generations have yet to be verified."""
        found = self._values.get(key)
        return found[0] if found is not None and time.monotonic() < found[1] else None
