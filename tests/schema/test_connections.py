"""Pages by cursor: stable under inserts, strict in what they take."""

import pytest
from graphql import GraphQLError
from hypothesis import given
from hypothesis import strategies as st

from schema.types.connections import Connection, cursor_of, id_of, size_of


@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=1))
def test_a_cursor_points_back_at_its_id(entry_id: str) -> None:
    """The next page starts after the entry itself, not after a position that may have shifted."""
    assert entry_id == id_of(cursor_of(entry_id))


@pytest.mark.parametrize(
    "cursor",
    ["", "in_1", "MQ", "MTo", cursor_of("in_1") + "=", cursor_of("in_1") + " ", "ö", "Mjppbl8x"],
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
        [("in_2", "b"), ("in_1", "a")], has_more=True, after=cursor_of("in_3")
    )

    assert page.nodes == ["b", "a"]
    assert [edge.cursor for edge in page.edges] == [cursor_of("in_2"), cursor_of("in_1")]
    assert page.page_info.has_next_page
    assert page.page_info.has_previous_page
    assert id_of(page.page_info.end_cursor) == "in_1"


def test_an_empty_page_points_nowhere() -> None:
    """A client must not be sent after nothing."""
    page = Connection[str].of([], has_more=False)

    assert page.page_info.end_cursor is None
    assert not page.page_info.has_next_page
