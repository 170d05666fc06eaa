"""A page of a longer list, and how one is asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items in their order, and whether there are more in the direction that was asked for."""

    items: tuple[T, ...]
    has_more: bool

    @classmethod
    def of(cls, found: Sequence[T], first: int) -> "Page[T]":
        """The first *first* of *found*, which was asked for one more than that."""
        return cls(tuple(found[:first]), len(found) > first)

    def map(self, shape: Callable[[T], U]) -> "Page[U]":
        """The same page with every item put through *shape*."""
        return Page(tuple(shape(item) for item in self.items), self.has_more)


class Window(NamedTuple):
    """*size* entries of a list: the next ones after the id *after*, or the last ones before the id *before*."""

    size: int
    after: str | None = None
    before: str | None = None

    def of(self, within: Sequence[T]) -> Page[T]:
        """The page, of everything *within* the ids."""
        if self.before is None:
            return Page.of(within, self.size)
        hidden = max(len(within) - self.size, 0)
        return Page(tuple(within[hidden:]), has_more=hidden > 0)
