"""The largest amount in a currency, and the sentence about a larger one."""

from collections.abc import Mapping
from decimal import Decimal

from billing.money import EXACT, Money, format_decimal
from billing.usage import Price

# Digits of the largest amount, in minor units. Stripe's documentation, "Minimum and maximum charge amounts": the
# highest figure for each currency.
DIGITS: Mapping[str, int] = {"lbp": 14, "cop": 13, "huf": 13, "jpy": 13, "idr": 12, "inr": 9}
DEFAULT_DIGITS = 8
MAX_AMOUNT = 10 ** max(DIGITS.values()) - 1
"""The largest amount of all. Above its currency's Stripe itself refuses a line; above this one none is sent."""


def largest_amount(currency: str) -> int:
    """The largest amount that Stripe charges in *currency*, in minor units."""
    return int(10 ** DIGITS.get(currency, DEFAULT_DIGITS) - 1)


def excess_of_usage(quantity: Decimal, price: Price) -> str | None:
    """Return why *quantity* at *price* is too much to be reported at once; None if it is not."""
    amount, largest = EXACT.multiply(quantity, price.unit_amount), largest_amount(price.currency)
    if -largest <= amount <= largest:
        return None
    return excess(f"{format_decimal(quantity)} of {price.sku!r}", amount, price.currency, largest)


def excess(subject: str, amount: int | Decimal, currency: str, largest: int = MAX_AMOUNT) -> str:
    """Return that *subject* comes to *amount*, in minor units, which is more than *largest*."""
    shown, limit = (Money.from_minor(value, currency).formatted for value in (amount, largest))
    return f"{subject} comes to {shown}, and Stripe takes no amount above {limit}."
