"""Stripe's JSON values: ids, times and decimals."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

StripeObject = Mapping[str, Any]


def id_of(reference: str | StripeObject | None) -> str | None:
    """The id of a Stripe reference, expanded or not."""
    return str(reference["id"]) if isinstance(reference, Mapping) else reference


def from_unix(seconds: int) -> datetime:
    """Convert Unix *seconds* to an aware time (UTC)."""
    return datetime.fromtimestamp(seconds, UTC)


def optional_time(seconds: int | None) -> datetime | None:
    """As ``from_unix``; None stays None."""
    return None if seconds is None else from_unix(seconds)


def optional_decimal(number: str | int | None) -> Decimal | None:
    """Convert Stripe's decimal string; None stays None."""
    return None if number is None else Decimal(number)
