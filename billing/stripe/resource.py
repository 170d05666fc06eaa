"""A resource: one GET of Stripe, with its cache entry and the record that it becomes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from billing.cache.entries import CacheEntry
from billing.errors import UnreadableAnswer
from billing.pagination import Page
from billing.stripe.values import StripeObject

T = TypeVar("T")
EntryValue = tuple[CacheEntry, Any]

CURSORS = {"starting_after": "after", "ending_before": "before"}


class ValueType(NamedTuple, Generic[T]):
    """A resource's value: its *type* in the cache, and its conversion from Stripe's JSON."""

    type: Any
    from_stripe: Callable[[StripeObject], T]


def _whole(value: T) -> tuple[T, Sequence[EntryValue]]:
    return value, ()


@dataclass(frozen=True, slots=True)
class Resource(Generic[T]):
    """One GET of Stripe, identified by its cache *entry*.

    *split* separates the values of other entries from the loaded value. *all_pages*: the value is a whole
    list. *all_lines*: the value is an invoice with all of its lines, not only those that Stripe embeds.
    """

    entry: CacheEntry
    path: str = field(compare=False)
    value_type: ValueType[T] = field(compare=False)
    params: Mapping[str, Any] = field(default_factory=dict, compare=False)
    split: Callable[[T], tuple[T, Sequence[EntryValue]]] = field(default=_whole, compare=False)
    all_pages: bool = field(default=False, compare=False)
    all_lines: bool = field(default=False, compare=False)

    def decode(self, body: StripeObject) -> T:
        """The value in *body*, Stripe's JSON; or UnreadableAnswer."""
        try:
            return self.value_type.from_stripe(body)
        except UnreadableAnswer.CAUSES as error:
            raise UnreadableAnswer(self.path, error) from None

    @property
    def is_cached(self) -> bool:
        """False if every read goes to Stripe."""
        return bool(self.entry.generations)

    @property
    def cursor_argument(self) -> str | None:
        """Name of the page argument that is a cursor, or None for a first page."""
        return next((CURSORS[name] for name in CURSORS if name in self.params), None)


def page_from_stripe(from_stripe: Callable[[StripeObject], T], body: StripeObject) -> Page[T]:
    """A page of a list, its objects converted by *from_stripe*."""
    return Page(tuple([from_stripe(item) for item in body["data"]]), has_more=body["has_more"])
