"""Why Support did something, in their own words."""

from billing.errors import ErrorCode, Refused

LONGEST = 1000


def reasoned(reason: str) -> str:
    """*reason* as the audit log keeps it; Refused when it says nothing or too much."""
    said = " ".join(reason.split())
    if 0 < len(said) <= LONGEST and said.isprintable():
        return said
    raise Refused(
        ErrorCode.INVALID_INPUT,
        f"Say why in 1 to {LONGEST} printable characters; it stands in the audit log.",
        ("input", "reason"),
    )
