"""Why Support did something, in their own words."""

from billing.errors import ErrorCode, Refused

LONGEST = 1000
# Arabic, Hebrew, Persian and composed emoji are not written without them; marks that turn the text
# around them (U+202E) stay refused, because the log is read by people.
JOINERS = dict.fromkeys(map(ord, "\u200c\u200d\u200e\u200f"))


def reasoned(reason: str) -> str:
    """*reason* as the audit log keeps it; Refused when it says nothing or too much."""
    said = " ".join(reason.split())
    if 0 < len(said) <= LONGEST and said.translate(JOINERS).isprintable():
        return said
    raise Refused(
        ErrorCode.INVALID_INPUT,
        f"Say why in 1 to {LONGEST} printable characters; it stands in the audit log.",
        ("input", "reason"),
    )
