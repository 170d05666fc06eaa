"""What Redis says of an entry, and what it is given to keep."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from billing.cache.entries import Entry


class State(StrEnum):
    """What ``look`` found; ``look.lua`` says what each means."""

    HIT = "hit"
    STALE = "stale"
    MISS = "miss"
    WAIT = "wait"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Look:
    """One entry as Redis has it: *generations* that stand now, *token* the order to load it ("" for none).

    *kept* is the last value kept, valid or not; *fresh* and *usable* are seconds left.
    """

    state: State
    generations: tuple[bytes, ...]
    token: str
    kept: bytes
    fresh: float
    usable: float

    @classmethod
    def of(cls, answer: list[Any]) -> Self:
        """From what ``look.lua`` answers of one entry."""
        state, generations, token, kept, fresh, usable = answer
        return cls(
            state=State(state.decode()),
            generations=tuple(generations.split(b" ")),
            token=token.decode(),
            kept=kept or b"",
            fresh=fresh / 1000,
            usable=usable / 1000,
        )


@dataclass(frozen=True, slots=True)
class Filling:
    """A value on its way into Redis, and the other entries that the same load has answered; seconds."""

    entry: Entry
    look: Look
    value: bytes
    fresh: float
    usable: float
    kept: float
    others: Sequence[tuple[Entry, bytes]] = ()
