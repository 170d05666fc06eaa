"""Result of a cache lookup, and the request to fill an entry."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from billing.cache.entries import CacheEntry


class LookupState(StrEnum):
    """State of an entry, as ``look.lua`` defines it."""

    HIT = "hit"
    STALE = "stale"
    MISS = "miss"
    WAIT = "wait"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Lookup:
    """An entry in Redis: its current *generations*, and the *lock_token* of an acquired load lock or "".

    *last_value* is the last stored value, valid or not; the seconds are the time left.
    """

    state: LookupState
    generations: tuple[bytes, ...]
    lock_token: str
    last_value: bytes
    fresh_seconds: float
    usable_seconds: float

    @classmethod
    def from_reply(cls, reply: list[Any]) -> Self:
        """Decode the reply of ``look.lua`` for one entry."""
        state, generations, lock_token, last_value, fresh_ms, usable_ms = reply
        return cls(
            state=LookupState(state.decode()),
            generations=tuple(generations.split(b" ")),
            lock_token=lock_token.decode(),
            last_value=last_value or b"",
            fresh_seconds=fresh_ms / 1000,
            usable_seconds=usable_ms / 1000,
        )


@dataclass(frozen=True, slots=True)
class FillRequest:
    """A value to store, and the values of *others* that the same load returned; times in seconds."""

    entry: CacheEntry
    lookup: Lookup
    value: bytes
    fresh_ttl: float
    usable_ttl: float
    ttl: float
    others: Sequence[tuple[CacheEntry, bytes]] = ()
