"""Exact quantities as the scripts need them: a whole part and 10^-12 parts, both integers."""

from decimal import Decimal

from billing.money import EXACT, QUANTITY_PLACES, format_decimal

UNIT = 10**QUANTITY_PLACES
WHOLE_DIGITS = 15


class QuantityOutOfRange(ValueError):
    """More than 15 digits before the point or 12 after it."""

    def __init__(self) -> None:
        super().__init__("A quantity has at most 15 digits before the point and 12 after it.")


def to_fixed_point(quantity: Decimal) -> tuple[int, int]:
    """Return *quantity* as ``hi + lo * 10**-12``, ``0 <= lo < 10**12``, or raise QuantityOutOfRange."""
    if not quantity:
        return 0, 0  # with any number of zeros
    if not quantity.is_finite() or not -QUANTITY_PLACES <= quantity.adjusted() < WHOLE_DIGITS:
        raise QuantityOutOfRange
    steps = EXACT.scaleb(quantity, QUANTITY_PLACES)
    if steps != (whole := int(steps)):
        raise QuantityOutOfRange
    hi, lo = divmod(whole, UNIT)
    return hi, lo


def format_quantity(quantity: Decimal) -> str:
    """Return *quantity* in plain notation, or raise QuantityOutOfRange."""
    to_fixed_point(quantity)
    return format_decimal(quantity)
