"""Scalars that refuse what they cannot carry exactly: plain decimals, moments with an offset."""

import re
from datetime import UTC, datetime
from decimal import Decimal

import strawberry
from graphql import GraphQLError
from strawberry.types.scalar import ScalarDefinition

from billing.money import plain

LONGEST_DECIMAL = 64
DECIMAL_FORM = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?", re.ASCII)
MOMENT_FORM = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]{1,9})?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})",
    re.ASCII,
)


def write_decimal(value: Decimal | int) -> str:
    """Plain notation without trailing zeros; a non-finite value is a fault of ours."""
    exact = Decimal(value)
    if not exact.is_finite():
        raise GraphQLError("An amount that is no number cannot be answered.")
    return plain(exact)


def read_decimal(value: object) -> Decimal:
    """The number that *value* (a string) spells out, or a GraphQLError that shows the form."""
    if (
        isinstance(value, str)
        and len(value) <= LONGEST_DECIMAL
        and DECIMAL_FORM.fullmatch(value) is not None
    ):
        return Decimal(value)
    raise GraphQLError(
        'Decimal is a string in plain notation, such as "0.000021" or "-3", so that nothing is rounded.',
    )


def write_moment(value: datetime) -> str:
    """RFC 3339 in UTC, always with three fractional digits: ``2026-11-01T00:00:00.000Z``."""
    if value.tzinfo is None:
        raise GraphQLError("A moment without an offset cannot be answered.")
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read_moment(value: object) -> datetime:
    """The moment that *value* names, in UTC, to the microsecond; a GraphQLError without an offset."""
    parts = MOMENT_FORM.fullmatch(value) if isinstance(value, str) else None
    if parts is None:
        raise _no_moment()
    date, time, fraction, offset = parts.groups()
    text = f"{date}T{time}{(fraction or '')[:7]}{offset.upper().replace('Z', '+00:00')}"
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise _no_moment() from None


def _no_moment() -> GraphQLError:
    return GraphQLError(
        'DateTime is an RFC 3339 string with an offset, such as "2026-11-22T10:00:00Z".'
    )


DECIMAL = strawberry.scalar(
    name="Decimal",
    description='An exact decimal in plain notation, sent as a string and never as a float: "0.000021".',
    specified_by_url="https://www.w3.org/TR/xmlschema11-2/#decimal",
    serialize=write_decimal,
    parse_value=read_decimal,
)
DATE_TIME = strawberry.scalar(
    name="DateTime",
    description=(
        "A moment as RFC 3339 writes it. Answers are in UTC with milliseconds "
        '("2026-11-22T10:00:00.000Z"); inputs may have any offset, but must have one.'
    ),
    specified_by_url="https://www.rfc-editor.org/rfc/rfc3339#section-5.6",
    serialize=write_moment,
    parse_value=read_moment,
)
SCALARS: dict[object, ScalarDefinition] = {Decimal: DECIMAL, datetime: DATE_TIME}
