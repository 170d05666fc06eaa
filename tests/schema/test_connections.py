"""Relay connections: stable cursors and strict page arguments."""

from dataclasses import dataclass
from typing import Any, cast

import pytest
from graphql import GraphQLError
from hypothesis import given
from hypothesis import strategies as st

from billing.pagination import Page, PageRequest
from schema.connections import (
    Connection,
    decode_cursor,
    encode_cursor,
    page_request,
    validate_page_size,
)


@given(st.from_regex(r"[A-Za-z0-9_-]{1,200}", fullmatch=True))
def test_cursor_decodes_to_its_id(entry_id: str) -> None:
    """The next page starts after the entry itself, not after an offset that may shift."""
    assert entry_id == decode_cursor(encode_cursor(entry_id))


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "in_1",
        "MQ",
        "MTo",
        encode_cursor("in_1") + "=",
        encode_cursor("in_1") + " ",
        "ö",
        "Mjppbl8x",
        encode_cursor("in_1/../../customers"),
    ],
)
def test_malformed_cursor_is_rejected(cursor: str) -> None:
    """A tampered cursor must not start the page at another place."""
    with pytest.raises(GraphQLError) as refused:
        decode_cursor(cursor)

    assert refused.value.extensions == {"code": "BAD_USER_INPUT"}


@pytest.mark.parametrize(("first", "size"), [(None, 20), (0, 0), (100, 100), (7, 7)])
def test_page_size_is_first_or_default(first: int | None, size: int) -> None:
    """A missing argument and an explicit null both mean the default."""
    assert size == validate_page_size(first, 20)


@pytest.mark.parametrize("first", [-1, 101, 2**31 - 1])
def test_page_size_out_of_range_is_rejected(first: int) -> None:
    """Stripe returns 100 entries at most; a larger page would take several calls."""
    with pytest.raises(GraphQLError, match="0 to 100"):
        validate_page_size(first, 20)


def test_page_info_has_cursors_of_both_ends() -> None:
    """`endCursor` is sufficient to request the next page."""
    page = connection("in_2", "in_1", has_more=True, request=PageRequest(2, after="in_3"))

    assert page.nodes == ["IN_2", "IN_1"]
    assert [edge.cursor for edge in cast("Any", page).edges()] == [
        encode_cursor("in_2"),
        encode_cursor("in_1"),
    ]
    assert page.page_info.has_next_page
    assert page.page_info.has_previous_page
    assert decode_cursor(page.page_info.end_cursor) == "in_1"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((None, None, None, None), PageRequest(20)),
        ((5, encode_cursor("in_1"), None, None), PageRequest(5, after="in_1")),
        ((20, None, 5, encode_cursor("in_1")), PageRequest(5, before="in_1")),
        ((None, None, 0, encode_cursor("in_1")), PageRequest(0, before="in_1")),
    ],
)
def test_page_request_forward_and_backward(
    arguments: tuple[Any, ...], expected: PageRequest
) -> None:
    """The schema's default `first: 20` does not contradict `last`."""
    assert page_request(*arguments, default=20) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        (5, None, 5, encode_cursor("in_1")),
        (None, encode_cursor("in_2"), 5, encode_cursor("in_1")),
        (None, None, 5, None),
        (20, None, None, encode_cursor("in_1")),
        (None, encode_cursor("in_2"), 5, None),
        (None, None, 101, encode_cursor("in_1")),
        (None, None, 5, "in_1"),
    ],
)
def test_contradictory_page_arguments_are_rejected(arguments: tuple[Any, ...]) -> None:
    """Stripe pages from one cursor in one direction."""
    with pytest.raises(GraphQLError, match=r"last|before") as refused:
        page_request(*arguments, default=20)

    assert refused.value.extensions == {"code": "BAD_USER_INPUT"}


@pytest.mark.parametrize("has_more", [True, False])
def test_backward_page_has_next_page(has_more: bool) -> None:
    """On a backward page, the entry at the `before` cursor follows."""
    request_ = PageRequest(1, before="in_1")
    info = connection("in_2", has_more=has_more, request=request_).page_info

    assert (info.has_previous_page, info.has_next_page) == (has_more, True)


def test_first_page_has_no_previous_page() -> None:
    """Nothing precedes a page that began without a cursor."""
    info = connection("in_2", has_more=False, request=PageRequest(1)).page_info

    assert not info.has_previous_page
    assert not info.has_next_page


def test_empty_page_has_no_cursors() -> None:
    """An empty page has no cursor and no next page."""
    page = connection(has_more=False, request=PageRequest(20))

    assert page.page_info.end_cursor is None
    assert not page.page_info.has_next_page


@dataclass
class Record:
    """A record with an id."""

    id: str


def connection(*ids: str, has_more: bool, request: PageRequest) -> Connection[str]:
    """The connection of records with these ids, converted to upper case."""
    page = Page(tuple(Record(id_) for id_ in ids), has_more)
    return Connection[str].from_page(page, request, lambda record: record.id.upper())
