"""Response store: whole responses in the process, served while their generations are current."""

import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from billing.cache import Cache
from billing.cache.lru import Lru
from billing.cache.redis_backend import CacheUnavailable

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class _StoredResponse(Generic[R]):
    response: R
    generation_names: tuple[str, ...]
    generations: tuple[bytes, ...]
    expires_at: float


class ResponseStore(Generic[R]):
    """At most *limit* bytes of responses; the generations of each are verified in Redis on every read.

    The verifications of one event loop iteration share one command, so a repeated view costs about as
    much as a static page.
    """

    def __init__(self, cache: Cache, limit: int = 64 << 20) -> None:
        self._cache = cache
        self._responses: Lru[_StoredResponse[R]] = Lru(limit)

    def __contains__(self, key: Hashable) -> bool:
        """True if a response to *key* is stored, valid or not."""
        return key in self._responses

    async def get(self, key: Hashable) -> R | None:
        """The response to *key*, if its generations are current."""
        stored = self._responses.get(key)
        if stored is None or time.monotonic() >= stored.expires_at:
            return None
        try:
            current = await self._cache.generations(*stored.generation_names)
        except CacheUnavailable:
            return None
        return stored.response if current == stored.generations else None

    def put(
        self,
        key: Hashable,
        response: R,
        generations: Mapping[str, bytes],
        *,
        expires_at: float,
        weight: int,
    ) -> None:
        """Store *response* of *weight* bytes until *expires_at* (monotonic seconds).

        *generations* were read before the data that they stand for.
        """
        stored = _StoredResponse(
            response, tuple(generations), tuple(generations.values()), expires_at
        )
        self._responses.put(key, stored, weight)
