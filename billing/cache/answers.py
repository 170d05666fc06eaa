"""Whole answers, kept in the process and given again while everything that they depend on stands."""

import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from billing.cache import Cache
from billing.cache.lru import Lru
from billing.cache.redis_backend import CacheGone

A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class _Kept(Generic[A]):
    answer: A
    names: tuple[str, ...]
    standing: tuple[bytes, ...]
    until: float


class Answers(Generic[A]):
    """At most *limit* bytes of answers; each is verified in Redis whenever it is given.

    The verifications of one loop tick share one command, so that a repeated view costs about what a
    static page does.
    """

    def __init__(self, cache: Cache, limit: int = 64 << 20) -> None:
        self._cache = cache
        self._kept: Lru[_Kept[A]] = Lru(limit)

    def __contains__(self, key: Hashable) -> bool:
        """Whether there was an answer to *key*, which may stand no longer."""
        return key in self._kept

    async def get(self, key: Hashable) -> A | None:
        """The answer to *key*, if nothing that it depends on has changed."""
        kept = self._kept.get(key)
        if kept is None or time.monotonic() >= kept.until:
            return None
        try:
            standing = await self._cache.generations(*kept.names)
        except CacheGone:
            return None
        return kept.answer if standing == kept.standing else None

    def put(
        self,
        key: Hashable,
        answer: A,
        generations: Mapping[str, bytes],
        *,
        until: float,
        weight: int,
    ) -> None:
        """Keep *answer*, true under *generations*, for *weight* bytes and *until* (monotonic seconds).

        *generations* were read before what they stand for.
        """
        kept = _Kept(answer, tuple(generations), tuple(generations.values()), until)
        self._kept.put(key, kept, weight)
