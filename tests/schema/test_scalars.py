"""The scalars Decimal and DateTime are exact."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from graphql import GraphQLError
from hypothesis import given
from hypothesis import strategies as st

from billing.usage_validation import parse_quantity
from schema import inputs
from schema.scalars import serialize_datetime, serialize_decimal


@given(
    st.decimals(
        allow_nan=False, allow_infinity=False, min_value=1 - 10**15, max_value=10**15 - 1, places=12
    )
)
def test_decimal_round_trip_is_exact(value: Decimal) -> None:
    """A client reads and sends back the ledger's quantity to the last digit."""
    assert value == parse_quantity(serialize_decimal(value))


def test_decimal_is_serialized_in_plain_notation() -> None:
    """Not all clients parse exponents, and neither does Stripe."""
    assert serialize_decimal(Decimal("1E-7")) == "0.0000001"
    assert serialize_decimal(Decimal("1E+3")) == "1000"
    assert serialize_decimal(Decimal("-0.00")) == "0"


def test_non_finite_decimal_is_rejected() -> None:
    """A NaN on a bill is a bug, not an amount."""
    with pytest.raises(GraphQLError):
        serialize_decimal(Decimal("NaN"))


def test_datetime_is_serialized_in_utc_with_milliseconds() -> None:
    """The output format is the same for every time zone."""
    kolkata = timezone(timedelta(hours=5, minutes=30))

    assert (
        serialize_datetime(datetime(2026, 11, 22, 15, 30, 0, 123_999, kolkata))
        == "2026-11-22T10:00:00.123Z"
    )
    assert serialize_datetime(datetime(31, 1, 1, tzinfo=UTC)) == "0031-01-01T00:00:00.000Z"


def test_naive_datetime_is_rejected() -> None:
    """A datetime without an offset is a bug."""
    with pytest.raises(GraphQLError):
        serialize_datetime(datetime(2026, 11, 22))  # noqa: DTZ001 the point


def test_input_numbers_and_datetimes_are_annotated_as_unparsed() -> None:
    """Inputs are parsed where they are used; an annotation as Decimal would be wrong at run time."""
    annotated = {
        f"{name}.{field}": kind
        for name, type_ in vars(inputs).items()
        if name.endswith("Input")
        for field, kind in type_.__annotations__.items()
    }

    assert annotated["UsageDeltaInput.quantity"] is object
    assert not {Decimal, datetime} & set(annotated.values())
