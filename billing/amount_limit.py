"""The largest amount of a line or invoice, and the sentence about a larger one."""

from decimal import Decimal

from billing.money import EXACT, Money, format_decimal
from billing.usage import Price

# Minor units. Stripe's documentation: an amount has at most eight digits; its currencies of small value have up to
# twelve. Between the two Stripe itself refuses, and above nothing can be billed or taken off.
MAX_AMOUNT = 10**12 - 1


def excess_of_line(quantity: Decimal, price: Price) -> str | None:
    """Return why no invoice can have a line of *quantity* at *price*; None if one can."""
    amount = EXACT.multiply(quantity, price.unit_amount)
    return excess(f"{format_decimal(quantity)} of {price.sku!r}", amount, price.currency)


def excess(subject: str, amount: int | Decimal, currency: str) -> str | None:
    """Return that *subject* comes to more than the largest amount; None if *amount* (minor units) is within it."""
    if -MAX_AMOUNT <= amount <= MAX_AMOUNT:
        return None
    shown, largest = (Money.from_minor(value, currency).formatted for value in (amount, MAX_AMOUNT))
    return f"{subject} comes to {shown}, and Stripe takes no amount above {largest}."
