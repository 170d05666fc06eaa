"""Exact quantities as the scripts take them: a whole part and 10^-12 parts, both integers."""

from decimal import Decimal

from billing.money import EXACT, QUANTITY_PLACES, plain

UNIT = 10**QUANTITY_PLACES
WHOLE_DIGITS = 15


class OutOfRange(ValueError):
    """More than 15 digits before the point or 12 after it."""

    def __init__(self) -> None:
        super().__init__("A quantity has at most 15 digits before the point and 12 after it.")


def scaled(quantity: Decimal) -> tuple[int, int]:
    """*quantity* as ``hi + lo * 10**-12`` with ``0 <= lo < 10**12``; OutOfRange when it does not fit."""
    if not quantity.is_finite() or not -QUANTITY_PLACES <= quantity.adjusted() < WHOLE_DIGITS:
        raise OutOfRange
    steps = EXACT.scaleb(quantity, QUANTITY_PLACES)
    if steps != (whole := int(steps)):
        raise OutOfRange
    hi, lo = divmod(whole, UNIT)
    return hi, lo


def as_text(quantity: Decimal) -> str:
    """*quantity* in plain notation; OutOfRange when it does not fit."""
    scaled(quantity)
    return plain(quantity)
