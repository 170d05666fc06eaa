"""Conversion of the ledger's timestamps."""

from datetime import UTC, datetime


def to_datetime(milliseconds: int) -> datetime:
    """*milliseconds* since 1970 as a datetime in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def to_optional_datetime(milliseconds: int | None) -> datetime | None:
    """As `to_datetime`; None stays None."""
    return None if milliseconds is None else to_datetime(milliseconds)
