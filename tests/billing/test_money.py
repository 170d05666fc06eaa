"""Exact amounts, and the one rounding rule."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.errors import MixedCurrencies
from billing.money import Money, exponent, line_amount, plain

QUANTITIES = st.decimals("-999999999999999", "999999999999999", places=12)
UNITS = st.decimals("0", "999999999999", places=12)


@pytest.mark.parametrize(("currency", "digits"), [("USD", 2), ("jpy", 0), ("kwd", 3), ("eur", 2)])
def test_minor_units_depend_on_the_currency(currency: str, digits: int) -> None:
    """A yen has no cents, a dinar has a thousand fils."""
    assert exponent(currency) == digits


@pytest.mark.parametrize(
    ("quantity", "unit", "amount"),
    [("1.5", "1", 2), ("2.5", "1", 3), ("-2.5", "1", -3), ("0.000021", "0.5", 0), ("0.49", "1", 0)],
)
def test_a_line_is_rounded_half_away_from_zero(quantity: str, unit: str, amount: int) -> None:
    """Each line by itself, as Stripe does it."""
    assert line_amount(Decimal(quantity), Decimal(unit)) == amount


@given(QUANTITIES, UNITS)
def test_rounding_happens_once_and_at_the_end(quantity: Decimal, unit: Decimal) -> None:
    """All digits of quantity and unit price count, up to 15 and 12; fractions check it."""
    exact = Fraction(quantity) * Fraction(unit)
    doubled = 2 * abs(exact)
    rounded = (doubled.numerator // doubled.denominator + 1) // 2

    assert line_amount(quantity, unit) == (rounded if exact >= 0 else -rounded)


@given(QUANTITIES, UNITS)
def test_a_credit_mirrors_its_charge(quantity: Decimal, unit: Decimal) -> None:
    """What is given back is what was taken."""
    assert line_amount(-quantity, unit) == -line_amount(quantity, unit)


@given(st.integers(-(10**15), 10**15), st.sampled_from(["usd", "jpy", "kwd"]))
def test_minor_units_become_major_ones(minor: int, currency: str) -> None:
    """No digit is lost on the way."""
    major = Fraction(Money.of_minor(minor, currency).amount)

    assert major * 10 ** exponent(currency) == minor


@given(QUANTITIES, QUANTITIES)
def test_sums_are_exact(one: Decimal, other: Decimal) -> None:
    """However far apart their digits lie."""
    summed = Money(one, "usd") + Money(other, "usd")

    assert Fraction(summed.amount) == Fraction(one) + Fraction(other)
    assert summed - Money(other, "usd") == Money(one, "usd")


def test_currencies_do_not_mix() -> None:
    """A sum of dollars and euros is a mistake, not a number."""
    with pytest.raises(MixedCurrencies, match="usd and eur"):
        Money(Decimal(1), "usd") + Money(Decimal(1), "eur")
    with pytest.raises(MixedCurrencies):
        Money(Decimal(1), "usd") - Money(Decimal(1), "eur")


@pytest.mark.parametrize(
    ("amount", "currency", "shown"),
    [
        ("1234.5", "usd", "USD 1,234.50"),
        ("-3", "jpy", "JPY -3"),
        ("0.000021", "usd", "USD 0.000021"),
        ("1.2", "kwd", "KWD 1.200"),
    ],
)
def test_amounts_read_well(amount: str, currency: str, shown: str) -> None:
    """With the currency's decimals, and all digits below a cent."""
    assert Money(Decimal(amount), currency).formatted == shown


@given(
    st.decimals(
        allow_nan=False, allow_infinity=False, min_value=-(10**15), max_value=10**15, places=12
    )
)
def test_plain_notation_is_the_same_number(value: Decimal) -> None:
    """Stripe takes no exponents, and zeros at the end would change an idempotent body."""
    text = plain(value)

    assert Decimal(text) == value
    assert "E" not in text
    assert text == plain(Decimal(f"{value:f}" + ("000" if "." in f"{value:f}" else ".000")))


@pytest.mark.parametrize(
    ("value", "text"), [("-0", "0"), ("0.000", "0"), ("1E+2", "100"), ("1E-7", "0.0000001")]
)
def test_plain_notation(value: str, text: str) -> None:
    """The cases that str() gets wrong."""
    assert plain(Decimal(value)) == text
