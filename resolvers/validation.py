"""What Support gives with an act, checked before anything is done: why, how much, of what."""

from decimal import Decimal

from billing import usage_validation
from billing.errors import ErrorCode, Refused
from billing.services import Services
from billing.usage import Period, Price

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


def exactly(sent: object, path: tuple[str, ...]) -> Decimal:
    """The number that *sent* spells out; Refused (INVALID_INPUT, pointing at *path*) when it is none."""
    quantity = usage_validation.quantity(sent)
    if quantity is None:
        raise Refused(ErrorCode.INVALID_INPUT, usage_validation.QUANTITY_FORM, path)
    return quantity


def monthly(sent: str | None, path: tuple[str, ...]) -> Period | None:
    """The month that *sent* names, None for none given; Refused (INVALID_INPUT, pointing at *path*) for nonsense."""
    month = None if sent is None else usage_validation.month(sent)
    if sent is not None and month is None:
        raise Refused(ErrorCode.INVALID_INPUT, usage_validation.MONTH_FORM, path)
    return month


async def price_of(services: Services, sku: str, path: tuple[str, ...]) -> Price:
    """The price of *sku*; Refused (UNKNOWN_SKU, pointing at *path*) when Stripe sells none of that name."""
    prices = await services.catalogue.by_sku([sku])
    if sku not in prices:
        raise Refused(
            ErrorCode.UNKNOWN_SKU,
            "No active Stripe price has this SKU for its lookup key; `currentPeriod.usage` shows those in use.",
            path,
        )
    return prices[sku]
