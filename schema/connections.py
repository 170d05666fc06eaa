"""Relay connections with ids as cursors, so pages stay stable when entries are inserted.

Strawberry's own connection uses offsets as cursors, which shift when Stripe inserts an invoice.
"""

import binascii
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Generic, TypeVar

import strawberry
from graphql import GraphQLError

from billing.pagination import MAX_PAGE_SIZE, Page, PageRequest
from resolvers.loop_slots import loop_slots
from schema.decorators import graphql_type
from schema.info import Info, selects

CURSOR_PREFIX = "1:"
# The id in a cursor is used in Stripe paths and in Redis keys.
ID_PATTERN = re.compile(r"[\w-]{1,200}", re.ASCII)
N = TypeVar("N")
R = TypeVar("R")

First = Annotated[
    int | None,
    strawberry.argument(description="Maximum number of entries, 0 to 100."),
]
After = Annotated[
    str | None,
    strawberry.argument(
        description="Cursor after which the page starts: `endCursor` of the previous page."
    ),
]
Last = Annotated[
    int | None,
    strawberry.argument(
        description="Maximum number of entries directly before `before`, 0 to 100."
    ),
]
Before = Annotated[
    str | None,
    strawberry.argument(
        description="Cursor before which the page ends: `startCursor` of the following page. Requires `last`; excludes `after`."
    ),
]


@graphql_type
class PageInfo:
    """Position of a page within its list, as defined by Relay."""

    has_next_page: bool = strawberry.field(description="True when more entries follow the page.")
    has_previous_page: bool = strawberry.field(
        description="True when entries precede the page; in forward pagination, when the page began after a cursor.",
    )
    start_cursor: str | None = strawberry.field(
        description="Cursor of the first entry, null when the page is empty; pass it as `before` to page backward.",
    )
    end_cursor: str | None = strawberry.field(
        description="Cursor of the last entry, null when the page is empty; pass it as `after` to page forward.",
    )


@graphql_type
class Edge(Generic[N]):
    """One entry of a page, with its cursor."""

    cursor: str = strawberry.field(
        description="Cursor of this entry; it stays valid when other entries are added or removed."
    )
    node: N = strawberry.field(description="Object that this entry contains.")


@graphql_type
class Connection(Generic[N]):
    """One page of a list."""

    entries: strawberry.Private[Sequence[tuple[str, N]]]
    nodes: list[N] = strawberry.field(description="Entries of the page, without their cursors.")
    page_info: PageInfo = strawberry.field(
        description="Cursors of the page, and whether more entries exist."
    )

    @strawberry.field
    def edges(self) -> list[Edge[N]]:
        """Entries of the page, each with its cursor."""
        return [Edge(cursor=encode_cursor(entry_id), node=node) for entry_id, node in self.entries]

    @classmethod
    def from_page(
        cls, page: Page[R], request: PageRequest, convert: Callable[[R], N]
    ) -> "Connection[N]":
        """The connection of a *page* of records, each as *convert* shapes it, under its record's id."""
        entries = [(_id_of(record), convert(record)) for record in page.items]
        backward = request.before is not None
        return cls(
            entries=entries,
            nodes=[node for _, node in entries],
            page_info=PageInfo(
                has_next_page=backward or page.has_more,
                has_previous_page=page.has_more if backward else request.after is not None,
                start_cursor=encode_cursor(entries[0][0]) if entries else None,
                end_cursor=encode_cursor(entries[-1][0]) if entries else None,
            ),
        )


async def connect(
    info: Info,
    request: PageRequest,
    load: Callable[[PageRequest], Awaitable[Page[R]]],
    convert: Callable[[R], N],
) -> Connection[N]:
    """Load the requested page and convert its records.

    For size 0, *load* only finds out if an entry follows, and only if `pageInfo` is selected.
    """
    if request.size or not selects(info, "pageInfo"):
        page = await load(request)
    else:
        probe = await load(request._replace(size=1))
        page = Page((), has_more=bool(probe.items) or probe.has_more)
    await loop_slots.take(len(page.items))
    return Connection[N].from_page(page, request, convert)


def forward_only(
    page: Callable[[int, str | None], Awaitable[Page[R]]],
) -> Callable[[PageRequest], Awaitable[Page[R]]]:
    """The load function for a *page* of the core, by its size and the id of the entry before it."""
    return lambda request: page(request.size, request.after)


def _id_of(record: Any) -> str:
    """The id of a record, or of the record in a `Loaded` value."""
    return str(getattr(record, "value", record).id)


def encode_cursor(entry_id: str) -> str:
    """The opaque cursor of *entry_id*."""
    return urlsafe_b64encode(f"{CURSOR_PREFIX}{entry_id}".encode()).decode().rstrip("=")


def page_request(
    first: int | None,
    after: str | None,
    last: int | None = None,
    before: str | None = None,
    *,
    default: int,
) -> PageRequest:
    """The page that Relay's four arguments request; a GraphQLError (BAD_USER_INPUT) when they contradict each other.

    The schema fills in `first` with its *default*, so that value does not contradict `last`.
    """
    if last is None and before is None:
        return PageRequest(validate_page_size(first, default), decode_cursor(after))
    if last is None or before is None or after is not None or first not in (None, default):
        raise bad_input("Go on with `first` and `after`, or back with both `last` and `before`.")
    return PageRequest(
        validate_page_size(last, default, "last"), before=decode_cursor(before, "before")
    )


def decode_cursor(cursor: str | None, argument: str = "after") -> str | None:
    """The id in *cursor*; a GraphQLError (BAD_USER_INPUT) for a cursor that no page contained."""
    if cursor is None:
        return None
    try:
        text = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
    except (binascii.Error, ValueError):
        text = ""
    entry_id = text.removeprefix(CURSOR_PREFIX)
    # Decoders accept stray characters; only the exact encoding of `encode_cursor` is accepted.
    if not (
        text.startswith(CURSOR_PREFIX)
        and ID_PATTERN.fullmatch(entry_id)
        and encode_cursor(entry_id) == cursor
    ):
        raise bad_input(f"`{argument}` is not a valid cursor; pass one from a page of this list.")
    return entry_id


def validate_page_size(requested: int | None, default: int, argument: str = "first") -> int:
    """The page size: *requested*, or *default* if None; a GraphQLError (BAD_USER_INPUT) outside 0 to 100."""
    size = default if requested is None else requested
    if not 0 <= size <= MAX_PAGE_SIZE:
        raise bad_input(f"`{argument}` is {size}; a page has 0 to {MAX_PAGE_SIZE} entries.")
    return size


def bad_input(message: str) -> GraphQLError:
    """A GraphQLError (BAD_USER_INPUT) for an invalid argument."""
    return GraphQLError(message, extensions={"code": "BAD_USER_INPUT"})
