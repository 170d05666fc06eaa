"""Pages of lists, and requests for them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

MAX_PAGE_SIZE = 100
"""Largest page, as in Stripe."""

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Items in order; *has_more* when further items follow in the requested direction."""

    items: tuple[T, ...]
    has_more: bool

    @classmethod
    def from_items(cls, items: Sequence[T], limit: int) -> "Page[T]":
        """The first *limit* of *items*, of which one more than *limit* was requested."""
        return cls(tuple(items[:limit]), len(items) > limit)

    def map(self, function: Callable[[T], U]) -> "Page[U]":
        """Apply *function* to every item."""
        return Page(tuple(function(item) for item in self.items), self.has_more)


class PageRequest(NamedTuple):
    """A request for *size* items: the next after the id *after*, or the last before the id *before*."""

    size: int
    after: str | None = None
    before: str | None = None

    def apply(self, items: Sequence[T]) -> Page[T]:
        """The page of *items*, the whole list between the two ids."""
        if self.before is None:
            return Page.from_items(items, self.size)
        hidden = max(len(items) - self.size, 0)
        return Page(tuple(items[hidden:]), has_more=hidden > 0)
