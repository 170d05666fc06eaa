"""Scalars carry exactly what they were given, or refuse it."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from graphql import GraphQLError
from hypothesis import given
from hypothesis import strategies as st

from schema.types.scalars import read_decimal, read_moment, write_decimal, write_moment


@given(
    st.decimals(
        allow_nan=False, allow_infinity=False, min_value=-(10**15), max_value=10**15, places=12
    )
)
def test_a_decimal_survives_the_way_out_and_in(value: Decimal) -> None:
    """What the ledger counts is what a client reads and sends back, to the last digit."""
    assert value == read_decimal(write_decimal(value))


def test_a_small_decimal_is_written_in_plain_notation() -> None:
    """Clients do not all read exponents, and Stripe does not."""
    assert write_decimal(Decimal("1E-7")) == "0.0000001"
    assert write_decimal(Decimal("1E+3")) == "1000"
    assert write_decimal(Decimal("-0.00")) == "0"


@pytest.mark.parametrize(
    "value",
    [
        "NaN",
        "Infinity",
        "1e5",
        "1_000",
        " 1",
        "1 ",
        "+1",
        "٣",
        "",
        ".5",
        "5.",
        "007",
        "1\n",
        1.5,
        1,
        True,
        None,
        "9" * 65,
    ],
)
def test_what_is_no_plain_decimal_string_is_refused(value: object) -> None:
    """Python's own Decimal would take most of these and bill them."""
    with pytest.raises(GraphQLError, match="plain notation"):
        read_decimal(value)


def test_a_number_that_is_none_is_never_answered() -> None:
    """A NaN on a bill is a fault of ours, not an amount."""
    with pytest.raises(GraphQLError):
        write_decimal(Decimal("NaN"))


def test_a_moment_is_answered_in_utc_with_milliseconds() -> None:
    """One form for all clients, wherever the moment came from."""
    kolkata = timezone(timedelta(hours=5, minutes=30))

    assert (
        write_moment(datetime(2026, 11, 22, 15, 30, 0, 123_999, kolkata))
        == "2026-11-22T10:00:00.123Z"
    )
    assert write_moment(datetime(31, 1, 1, tzinfo=UTC)) == "0031-01-01T00:00:00.000Z"


def test_a_moment_is_taken_with_any_offset() -> None:
    """Producers live in their own time zones; the month is decided in UTC."""
    expected = datetime(2026, 11, 1, 0, 0, 0, 123_456, UTC)

    assert expected == read_moment("2026-11-01T00:00:00.123456789Z")
    assert expected == read_moment("2026-10-31t20:00:00.123456-04:00")


@pytest.mark.parametrize(
    "value",
    [
        "2026-11-22",
        "2026-11-22T10:00:00",
        "2026-02-30T00:00:00Z",
        "2026-11-22T24:01:00Z",
        "2026-11-22 10:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "2026-11-22T10:00:00Z\n",
        1_700_000_000,
        None,
    ],
)
def test_a_moment_without_offset_or_meaning_is_refused(value: object) -> None:
    """A naive time would be billed to whichever month the server believes in."""
    with pytest.raises(GraphQLError, match="RFC 3339"):
        read_moment(value)


def test_a_naive_moment_is_never_answered() -> None:
    """A moment without an offset is a fault of ours."""
    with pytest.raises(GraphQLError):
        write_moment(datetime(2026, 11, 22))  # noqa: DTZ001 the point
