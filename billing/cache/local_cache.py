"""What the process has of the read cache: values in their shape, to be verified before each use."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from billing.cache.lru import Lru

HELD_BYTES = (
    3  # records take 2.5 bytes of the process for each byte of their JSON (benchmarks/reads.py)
)


class Source(StrEnum):
    """Where a value came from, as the contract's ``FreshnessSource``."""

    STRIPE = "STRIPE"
    CACHE = "CACHE"
    STALE = "STALE"


@dataclass(frozen=True, slots=True)
class Cached:
    """A *value* in its shape (None: known not to exist) and when its load began.

    *generations* is what it is valid under; None when nothing vouches for it after this read.
    """

    value: Any | None
    source: Source
    fetched_at: datetime
    generations: Mapping[str, bytes] | None


class Memory:
    """The values last used, at most *limit* bytes of them."""

    def __init__(self, limit: int) -> None:
        self._held: Lru[tuple[Cached, float]] = Lru(limit)

    def put(self, key: str, cached: Cached, *, fresh: float, json_bytes: int) -> None:
        """Hold *cached*, fresh for so many seconds while its generations stand."""
        held = cached if cached.source is Source.CACHE else replace(cached, source=Source.CACHE)
        fresh_until = time.monotonic() + (0 if cached.generations is None else fresh)
        self._held.put(key, (held, fresh_until), HELD_BYTES * json_bytes)

    @property
    def bytes(self) -> int:
        """What everything held weighs."""
        return self._held.bytes

    def get(self, key: str) -> Cached | None:
        """The last value held, fresh or not."""
        found = self._held.get(key)
        return None if found is None else found[0]

    def fresh(self, key: str) -> Cached | None:
        """The value of *key* that will do if its generations still stand."""
        found = self._held.get(key)
        return found[0] if found is not None and time.monotonic() < found[1] else None
