"""Validation of mutation arguments: the reason, quantities, months and SKUs."""

from datetime import UTC, datetime
from decimal import Decimal

from billing import usage_validation
from billing.amount_limit import excess_of_usage
from billing.errors import ErrorCode, Refused
from billing.services import Services
from billing.usage import Period, Price
from billing.usage_validation import UNREADABLE

MAX_REASON_LENGTH = 1000


def validate_reason(reason: str) -> str:
    """Return *reason* with its whitespace normalized; Refused (INVALID_INPUT) if it is empty or too long."""
    text = " ".join(reason.split())
    if 0 < len(text) <= MAX_REASON_LENGTH and not UNREADABLE.search(text):
        return text
    raise Refused(
        ErrorCode.INVALID_INPUT,
        f"Give a reason of 1 to {MAX_REASON_LENGTH:,} printable characters; the audit log stores it.",
        ("reason",),
    )


def validate_optional_reason(reason: str | None) -> str | None:
    """As `validate_reason`, for a mutation that needs no reason; an empty one counts as none."""
    return validate_reason(reason) if reason else None


def parse_quantity(value: object, path: tuple[str, ...]) -> Decimal:
    """Parse a decimal quantity; Refused (INVALID_INPUT, with *path*) if it is malformed."""
    quantity = usage_validation.parse_quantity(value)
    if quantity is None:
        raise Refused(ErrorCode.INVALID_INPUT, usage_validation.QUANTITY_FORMAT, path)
    return quantity


def parse_month(value: str | None, path: tuple[str, ...]) -> Period | None:
    """Parse a month such as "2026-10"; Refused (INVALID_INPUT, with *path*) if it is malformed."""
    month = None if value is None else usage_validation.parse_month(value)
    if value is not None and month is None:
        raise Refused(ErrorCode.INVALID_INPUT, usage_validation.MONTH_FORMAT, path)
    return month


def require_billable(quantity: Decimal, price: Price, path: tuple[str, ...]) -> None:
    """Refuse (INVALID_INPUT, with *path*) a quantity whose amount no invoice can show."""
    if excess := excess_of_usage(quantity, price):
        raise Refused(ErrorCode.INVALID_INPUT, f"{excess} Check the quantity.", path)


async def get_price(services: Services, sku: str, path: tuple[str, ...]) -> Price:
    """Return the price at which *sku* is sold; Refused (UNKNOWN_SKU, UNUSABLE_PRICE; with *path*) if it is not."""
    requested_at = datetime.now(UTC)
    prices = await services.price_catalog.by_sku([sku])
    if sku not in prices:
        refusal = services.price_catalog.refusal(sku, requested_at)
        hint = "`currentPeriod.usage` shows the SKUs on the bill."
        message = f"{refusal.message} {hint}"
        raise Refused(refusal.code, message, path, retry_after=refusal.retry_after)
    return prices[sku]
