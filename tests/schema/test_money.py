"""The Money type."""

from decimal import Decimal

import pytest

from schema.scalars import serialize_decimal
from schema.types.money import Money


@pytest.mark.parametrize(
    ("minor", "currency", "amount", "formatted"),
    [
        (123450, "usd", "1234.5", "USD 1,234.50"),
        (500, "jpy", "500", "JPY 500"),
        (1234, "kwd", "1.234", "KWD 1.234"),
        (-1, "USD", "-0.01", "USD -0.01"),
        (Decimal("0.0031"), "usd", "0.000031", "USD 0.000031"),
        (2**63, "usd", "92233720368547758.08", "USD 92,233,720,368,547,758.08"),
    ],
)
def test_amount_uses_decimals_of_its_currency(
    minor: int | Decimal, currency: str, amount: str, formatted: str
) -> None:
    """Amounts exceed GraphQL's Int; yen have no decimals, dinars have three."""
    money = Money.from_minor(minor, currency)

    assert (serialize_decimal(money.amount), money.currency, money.formatted) == (
        amount,
        currency.lower(),
        formatted,
    )


@pytest.mark.parametrize(
    ("minor", "currency", "rounded"),
    [
        ("123450", "usd", "USD 1,234.50"),
        ("0.5", "usd", "USD 0.01"),
        ("-0.5", "usd", "USD -0.01"),
        ("0.00015", "usd", "USD 0.00"),
        ("-0.00015", "usd", "USD 0.00"),
        ("499.5", "jpy", "JPY 500"),
        ("1234.4", "kwd", "KWD 1.234"),
    ],
)
def test_rounded_amount_has_whole_minor_units(minor: str, currency: str, rounded: str) -> None:
    """A half goes away from zero, as on a line at Stripe, and nothing is shown as minus zero."""
    assert Money.from_minor(Decimal(minor), currency).rounded() == rounded
