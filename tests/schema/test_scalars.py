"""Scalars carry exactly what they were given."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from graphql import GraphQLError
from hypothesis import given
from hypothesis import strategies as st

from billing.usage_validation import quantity
from schema import inputs
from schema.scalars import write_decimal, write_moment


@given(
    st.decimals(
        allow_nan=False, allow_infinity=False, min_value=1 - 10**15, max_value=10**15 - 1, places=12
    )
)
def test_a_decimal_survives_the_way_out_and_in(value: Decimal) -> None:
    """What the ledger counts is what a client reads and sends back, to the last digit."""
    assert value == quantity(write_decimal(value))


def test_a_small_decimal_is_written_in_plain_notation() -> None:
    """Clients do not all read exponents, and Stripe does not."""
    assert write_decimal(Decimal("1E-7")) == "0.0000001"
    assert write_decimal(Decimal("1E+3")) == "1000"
    assert write_decimal(Decimal("-0.00")) == "0"


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


def test_a_naive_moment_is_never_answered() -> None:
    """A moment without an offset is a fault of ours."""
    with pytest.raises(GraphQLError):
        write_moment(datetime(2026, 11, 22))  # noqa: DTZ001 the point


def test_no_input_calls_a_number_or_a_moment_more_than_what_was_sent() -> None:
    """Scalars are read where they are used; a field annotated as read would hold a string all the same."""
    annotated = {
        f"{name}.{field}": kind
        for name, type_ in vars(inputs).items()
        if name.endswith("Input")
        for field, kind in type_.__annotations__.items()
    }

    assert annotated["UsageDeltaInput.quantity"] is object
    assert not {Decimal, datetime} & set(annotated.values())
