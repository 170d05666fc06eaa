"""Exact quantities as the scripts take them: a whole part and 10^-12 parts, both integers."""

from decimal import Decimal

from billing.money import EXACT, QUANTITY_PLACES, plain

UNIT = 10**QUANTITY_PLACES
LIMIT = 10**15
DIGITS = 60
"""More than any quantity in range has; beyond, the exact arithmetic itself would round."""


class OutOfRange(ValueError):
    """More than 15 digits before the point or 12 after it."""


def scaled(quantity: Decimal) -> tuple[int, int]:
    """*quantity* as ``hi + lo * 10**-12`` with ``0 <= lo < 10**12``; OutOfRange when it does not fit."""
    if (
        not quantity.is_finite()
        or quantity.adjusted() > DIGITS
        or len(quantity.as_tuple().digits) > DIGITS
    ):
        raise OutOfRange(f"{quantity} is out of range")
    whole = int(steps := EXACT.scaleb(quantity, QUANTITY_PLACES))
    if whole != steps or abs(whole) >= LIMIT * UNIT:
        raise OutOfRange(f"{quantity} has more than 15 digits before the point or 12 after")
    return divmod(whole, UNIT)


def as_text(quantity: Decimal) -> str:
    """*quantity* in plain notation; OutOfRange when it does not fit."""
    scaled(quantity)
    return plain(quantity)
