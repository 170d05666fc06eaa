"""The scalars Decimal and DateTime, both exact.

As inputs they arrive unparsed (`schema.inputs`) and are validated where they are used, so that one invalid
delta does not fail its whole batch.
"""

from datetime import UTC, datetime
from decimal import Decimal

import strawberry
from graphql import GraphQLError
from strawberry.types.scalar import ScalarDefinition

from billing.money import format_decimal


def serialize_decimal(value: Decimal | int) -> str:
    """Plain notation without trailing zeros; a non-finite value is a bug and raises GraphQLError."""
    exact = Decimal(value)
    if not exact.is_finite():
        raise GraphQLError("A non-finite number cannot be serialized.")
    return format_decimal(exact)


def serialize_datetime(value: datetime) -> str:
    """RFC 3339 in UTC, always with three fractional digits: ``2026-11-01T00:00:00.000Z``."""
    if value.tzinfo is None:
        raise GraphQLError("A datetime without an offset cannot be serialized.")
    if value.tzinfo is not UTC:
        value = value.astimezone(UTC)
    return f"{value.isoformat(timespec='milliseconds').removesuffix('+00:00')}Z"


DECIMAL = strawberry.scalar(
    name="Decimal",
    description='An exact decimal number in plain notation, serialized as a string and never as a float: "0.000021".',
    specified_by_url="https://www.w3.org/TR/xmlschema11-2/#decimal",
    serialize=serialize_decimal,
)
DATE_TIME = strawberry.scalar(
    name="DateTime",
    description=(
        'A point in time in RFC 3339 format. Output is in UTC with milliseconds ("2026-11-22T10:00:00.000Z"); input may have any offset, but must have one.'
    ),
    specified_by_url="https://www.rfc-editor.org/rfc/rfc3339#section-5.6",
    serialize=serialize_datetime,
)
SCALARS: dict[object, ScalarDefinition] = {Decimal: DECIMAL, datetime: DATE_TIME}


def to_datetime(milliseconds: int) -> datetime:
    """*milliseconds* since 1970 as a datetime in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def to_optional_datetime(milliseconds: int | None) -> datetime | None:
    """As `to_datetime`; None stays None."""
    return None if milliseconds is None else to_datetime(milliseconds)
