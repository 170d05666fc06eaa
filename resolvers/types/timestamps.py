"""The ledger counts milliseconds, clients read moments."""

from datetime import UTC, datetime


def moment(milliseconds: int) -> datetime:
    """The ledger's *milliseconds* since 1970 as an aware time."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def maybe_moment(milliseconds: int | None) -> datetime | None:
    """As `moment`; None stays None."""
    return None if milliseconds is None else moment(milliseconds)
