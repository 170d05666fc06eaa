"""A quantity that Support names."""

from decimal import Decimal

from billing import reported
from billing.errors import ErrorCode, Refused


def exactly(sent: object, path: tuple[str, ...]) -> Decimal:
    """The number that *sent* spells out; Refused (INVALID_INPUT, pointing at *path*) when it is none."""
    quantity = reported.quantity(sent)
    if quantity is None:
        raise Refused(ErrorCode.INVALID_INPUT, reported.QUANTITY_FORM, path)
    return quantity
