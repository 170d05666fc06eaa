"""Relay connections made by hand: a cursor is the id of what it points at, so pages survive inserts.

Strawberry's own connection has offsets for cursors, which shift when Stripe inserts an invoice.
"""

import binascii
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Annotated, Generic, Self, TypeVar

import strawberry
from graphql import GraphQLError

from billing.pagination import Window
from schema.decorators import graphql_type

MOST = 100
VERSION = "1:"
# What a cursor points at ends up in Stripe's paths and in Redis keys.
ID = re.compile(r"[\w-]{1,200}", re.ASCII)
N = TypeVar("N")

First = Annotated[
    int | None,
    strawberry.argument(description="How many at most, 0 to 100."),
]
After = Annotated[
    str | None,
    strawberry.argument(
        description="The cursor after which to go on: the last page's `endCursor`."
    ),
]
Last = Annotated[
    int | None,
    strawberry.argument(description="How many at most, 0 to 100, of those just before `before`."),
]
Before = Annotated[
    str | None,
    strawberry.argument(
        description="The cursor to go back from: the page's `startCursor`. With `last`, not with `after`."
    ),
]


@graphql_type
class PageInfo:
    """Whether there is more, and where to go on."""

    has_next_page: bool = strawberry.field(description="Whether something follows.")
    has_previous_page: bool = strawberry.field(
        description="Whether something comes before; going forward, whether this page began after a cursor.",
    )
    start_cursor: str | None = strawberry.field(
        description="The first one's cursor, null when empty; pass it as `before` for the page before.",
    )
    end_cursor: str | None = strawberry.field(
        description="The last one's cursor; pass it as `after` for the next page.",
    )


@graphql_type
class Edge(Generic[N]):
    """One entry of a page, with its cursor."""

    cursor: str = strawberry.field(description="Points at this entry, also when others come or go.")
    node: N = strawberry.field(description="The entry itself.")


@graphql_type
class Connection(Generic[N]):
    """A page of a longer list."""

    entries: strawberry.Private[Sequence[tuple[str, N]]]
    nodes: list[N] = strawberry.field(description="The entries without their cursors.")
    page_info: PageInfo = strawberry.field(description="Whether there is more, and where.")

    @strawberry.field
    def edges(self) -> list[Edge[N]]:
        """The entries, each with its cursor."""
        return [Edge(cursor=cursor_of(entry_id), node=node) for entry_id, node in self.entries]

    @classmethod
    def of(
        cls, entries: Sequence[tuple[str, N]], *, has_more: bool, window: Window | None = None
    ) -> Self:
        """The page of *entries* (id, node); *has_more* in the direction of the *window* asked for."""
        after, before = (window.after, window.before) if window else (None, None)
        return cls(
            entries=entries,
            nodes=[node for _, node in entries],
            page_info=PageInfo(
                has_next_page=has_more if before is None else True,
                has_previous_page=after is not None if before is None else has_more,
                start_cursor=cursor_of(entries[0][0]) if entries else None,
                end_cursor=cursor_of(entries[-1][0]) if entries else None,
            ),
        )


def cursor_of(entry_id: str) -> str:
    """The opaque cursor that points at *entry_id*."""
    return urlsafe_b64encode(f"{VERSION}{entry_id}".encode()).decode().rstrip("=")


def window_of(
    first: int | None,
    after: str | None,
    last: int | None = None,
    before: str | None = None,
    *,
    default: int,
) -> Window:
    """What Relay's four arguments ask for; a GraphQLError (BAD_USER_INPUT) when they contradict each other.

    The schema fills `first` in with its *default*, so that much is no contradiction of `last`.
    """
    if last is None and before is None:
        return Window(size_of(first, default), id_of(after))
    if last is None or before is None or after is not None or first not in (None, default):
        raise bad_input("Go on with `first` and `after`, or back with both `last` and `before`.")
    return Window(size_of(last, default, "last"), before=id_of(before, "before"))


def id_of(cursor: str | None, argument: str = "after") -> str | None:
    """The id that *cursor* points at; a GraphQLError (BAD_USER_INPUT) for what no page of ours gave out."""
    if cursor is None:
        return None
    try:
        text = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        text = ""
    entry_id = text.removeprefix(VERSION)
    # Decoders forgive stray characters; only what we would write ourselves is taken.
    if not (text.startswith(VERSION) and ID.fullmatch(entry_id) and cursor_of(entry_id) == cursor):
        raise bad_input(f"`{argument}` is no cursor; pass the one that a page of this list gave.")
    return entry_id


def size_of(asked: int | None, default: int, argument: str = "first") -> int:
    """How many to load: *asked* if given, within 0 to 100; a GraphQLError (BAD_USER_INPUT) outside."""
    size = default if asked is None else asked
    if not 0 <= size <= MOST:
        raise bad_input(f"`{argument}` is {size}; a page has 0 to {MOST} entries.")
    return size


def bad_input(message: str) -> GraphQLError:
    """The error for an argument that no honest client sends."""
    return GraphQLError(message, extensions={"code": "BAD_USER_INPUT"})
