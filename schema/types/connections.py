"""Relay connections made by hand: a cursor is the id of what it points at, so pages survive inserts.

Strawberry's own connection has offsets for cursors, which shift when Stripe inserts an invoice.
"""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Annotated, Generic, Self, TypeVar

import strawberry
from graphql import GraphQLError

from schema.types.describing import graphql_type

MOST = 100
VERSION = "1:"
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


@graphql_type
class PageInfo:
    """Whether there is more, and where to go on."""

    has_next_page: bool = strawberry.field(description="Whether something follows.")
    has_previous_page: bool = strawberry.field(
        description="Whether this page began after a cursor."
    )
    start_cursor: str | None = strawberry.field(
        description="The first one's cursor; null when empty."
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

    edges: list[Edge[N]] = strawberry.field(description="The entries, each with its cursor.")
    nodes: list[N] = strawberry.field(description="The entries without their cursors.")
    page_info: PageInfo = strawberry.field(description="Whether there is more, and where.")

    @classmethod
    def of(
        cls, entries: Sequence[tuple[str, N]], *, has_more: bool, after: str | None = None
    ) -> Self:
        """The page of *entries* (id, node), that began after the cursor *after*."""
        cursors = [cursor_of(entry_id) for entry_id, _ in entries]
        nodes = [node for _, node in entries]
        return cls(
            edges=[
                Edge(cursor=cursor, node=node) for cursor, node in zip(cursors, nodes, strict=True)
            ],
            nodes=nodes,
            page_info=PageInfo(
                has_next_page=has_more,
                has_previous_page=after is not None,
                start_cursor=cursors[0] if cursors else None,
                end_cursor=cursors[-1] if cursors else None,
            ),
        )


def cursor_of(entry_id: str) -> str:
    """The opaque cursor that points at *entry_id*."""
    return urlsafe_b64encode(f"{VERSION}{entry_id}".encode()).decode().rstrip("=")


def id_of(cursor: str | None) -> str | None:
    """The id that *cursor* points at; a GraphQLError (BAD_USER_INPUT) for what no page of ours gave out."""
    if cursor is None:
        return None
    try:
        text = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        text = ""
    entry_id = text.removeprefix(VERSION)
    # Decoders forgive stray characters; only what we would write ourselves is taken.
    if not text.startswith(VERSION) or not entry_id or cursor_of(entry_id) != cursor:
        raise bad_input("`after` is no cursor of this list; pass a page's `endCursor`.")
    return entry_id


def size_of(first: int | None, default: int) -> int:
    """How many to load: *first* if given, within 0 to 100; a GraphQLError (BAD_USER_INPUT) outside."""
    size = default if first is None else first
    if not 0 <= size <= MOST:
        raise bad_input(f"`first` is {size}; a page has 0 to {MOST} entries.")
    return size


def bad_input(message: str) -> GraphQLError:
    """The error for an argument that no honest client sends."""
    return GraphQLError(message, extensions={"code": "BAD_USER_INPUT"})
