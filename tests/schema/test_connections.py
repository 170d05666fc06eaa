"""Pages by cursor: stable under inserts, strict in what they take."""

from typing import Any, cast

import pytest
from graphql import GraphQLError
from hypothesis import given
from hypothesis import strategies as st

from billing.pagination import Window
from schema.connections import Connection, cursor_of, id_of, size_of, window_of


@given(st.from_regex(r"[A-Za-z0-9_-]{1,200}", fullmatch=True))
def test_a_cursor_points_back_at_its_id(entry_id: str) -> None:
    """The next page starts after the entry itself, not after a position that may have shifted."""
    assert entry_id == id_of(cursor_of(entry_id))


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "in_1",
        "MQ",
        "MTo",
        cursor_of("in_1") + "=",
        cursor_of("in_1") + " ",
        "ö",
        "Mjppbl8x",
        cursor_of("in_1/../../customers"),
    ],
)
def test_a_cursor_that_no_page_gave_out_is_refused(cursor: str) -> None:
    """Decoders forgive; a cursor that was tampered with must not silently start elsewhere."""
    with pytest.raises(GraphQLError) as refused:
        id_of(cursor)

    assert refused.value.extensions == {"code": "BAD_USER_INPUT"}


@pytest.mark.parametrize(("first", "size"), [(None, 20), (0, 0), (100, 100), (7, 7)])
def test_a_page_has_the_size_asked_for(first: int | None, size: int) -> None:
    """Nothing asked means the default, and so does an explicit null."""
    assert size == size_of(first, 20)


@pytest.mark.parametrize("first", [-1, 101, 2**31 - 1])
def test_a_page_beyond_reason_is_refused(first: int) -> None:
    """Stripe gives 100 at a time; more would be many calls behind one argument."""
    with pytest.raises(GraphQLError, match="0 to 100"):
        size_of(first, 20)


def test_a_page_tells_where_to_go_on() -> None:
    """`endCursor` is all that a client needs for the next page."""
    page = Connection[str].of(
        [("in_2", "b"), ("in_1", "a")], has_more=True, window=Window(2, after="in_3")
    )

    assert page.nodes == ["b", "a"]
    assert [edge.cursor for edge in cast("Any", page).edges()] == [
        cursor_of("in_2"),
        cursor_of("in_1"),
    ]
    assert page.page_info.has_next_page
    assert page.page_info.has_previous_page
    assert id_of(page.page_info.end_cursor) == "in_1"


@pytest.mark.parametrize(
    ("asked", "window"),
    [
        ((None, None, None, None), Window(20)),
        ((5, cursor_of("in_1"), None, None), Window(5, after="in_1")),
        ((20, None, 5, cursor_of("in_1")), Window(5, before="in_1")),
        ((None, None, 0, cursor_of("in_1")), Window(0, before="in_1")),
    ],
)
def test_a_list_is_walked_either_way(asked: tuple[Any, ...], window: Window) -> None:
    """The schema's own `first: 20` does not stand in the way of `last`."""
    assert window_of(*asked, default=20) == window


@pytest.mark.parametrize(
    "asked",
    [
        (5, None, 5, cursor_of("in_1")),
        (None, cursor_of("in_2"), 5, cursor_of("in_1")),
        (None, None, 5, None),
        (20, None, None, cursor_of("in_1")),
        (None, cursor_of("in_2"), 5, None),
        (None, None, 101, cursor_of("in_1")),
        (None, None, 5, "in_1"),
    ],
)
def test_both_ways_at_once_is_neither(asked: tuple[Any, ...]) -> None:
    """Stripe walks from one cursor in one direction."""
    with pytest.raises(GraphQLError, match=r"last|before") as refused:
        window_of(*asked, default=20)

    assert refused.value.extensions == {"code": "BAD_USER_INPUT"}


@pytest.mark.parametrize(("has_more", "window"), [(True, Window(1, before="in_1")), (False, None)])
def test_a_page_knows_what_lies_on_either_side(has_more: bool, window: Window | None) -> None:
    """Going back, there is something after: what the cursor points at."""
    info = Connection[str].of([("in_2", "b")], has_more=has_more, window=window).page_info

    assert (info.has_previous_page, info.has_next_page) == (has_more, window is not None)


def test_an_empty_page_points_nowhere() -> None:
    """A client must not be sent after nothing."""
    page = Connection[str].of([], has_more=False)

    assert page.page_info.end_cursor is None
    assert not page.page_info.has_next_page
