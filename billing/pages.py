"""A page of a longer list."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items in their order, and whether more follow; the next page starts after the last one's id."""

    items: tuple[T, ...]
    has_more: bool

    @classmethod
    def of(cls, found: Sequence[T], first: int) -> "Page[T]":
        """The first *first* of *found*, which was asked for one more than that."""
        return cls(tuple(found[:first]), len(found) > first)

    def map(self, shape: Callable[[T], U]) -> "Page[U]":
        """The same page with every item put through *shape*."""
        return Page(tuple(shape(item) for item in self.items), self.has_more)
