"""Scalars that carry exactly: plain decimals, moments with an offset.

As inputs they arrive as they were sent (`schema.inputs`): whoever takes one reads it, and
refuses what it cannot read in its own place, so that one bad delta never fails its whole batch.
"""

from datetime import UTC, datetime
from decimal import Decimal

import strawberry
from graphql import GraphQLError
from strawberry.types.scalar import ScalarDefinition

from billing.money import plain


def write_decimal(value: Decimal | int) -> str:
    """Plain notation without trailing zeros; a non-finite value is a fault of ours."""
    exact = Decimal(value)
    if not exact.is_finite():
        raise GraphQLError("An amount that is no number cannot be answered.")
    return plain(exact)


def write_moment(value: datetime) -> str:
    """RFC 3339 in UTC, always with three fractional digits: ``2026-11-01T00:00:00.000Z``."""
    if value.tzinfo is None:
        raise GraphQLError("A moment without an offset cannot be answered.")
    if value.tzinfo is not UTC:
        value = value.astimezone(UTC)
    return f"{value.isoformat(timespec='milliseconds').removesuffix('+00:00')}Z"


DECIMAL = strawberry.scalar(
    name="Decimal",
    description='An exact decimal in plain notation, sent as a string and never as a float: "0.000021".',
    specified_by_url="https://www.w3.org/TR/xmlschema11-2/#decimal",
    serialize=write_decimal,
)
DATE_TIME = strawberry.scalar(
    name="DateTime",
    description=(
        "A moment as RFC 3339 writes it. Answers are in UTC with milliseconds "
        '("2026-11-22T10:00:00.000Z"); inputs may have any offset, but must have one.'
    ),
    specified_by_url="https://www.rfc-editor.org/rfc/rfc3339#section-5.6",
    serialize=write_moment,
)
SCALARS: dict[object, ScalarDefinition] = {Decimal: DECIMAL, datetime: DATE_TIME}
