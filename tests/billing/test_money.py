"""Exact amounts and the rounding rule."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.errors import MixedCurrencies
from billing.money import DECIMALS, Money, exponent, format_decimal, line_amount

QUANTITIES = st.decimals("-999999999999999", "999999999999999", places=12)
UNITS = st.decimals("0", "999999999999", places=12)


@pytest.mark.parametrize(
    ("minor", "currency", "formatted"),
    [
        (1000, "USD", "USD 10.00"),
        (1099, "eur", "EUR 10.99"),
        (500, "jpy", "JPY 500"),
        (5120, "kwd", "KWD 5.120"),
        (500, "isk", "ISK 5.00"),
        (500, "ugx", "UGX 5.00"),
        (1045, "huf", "HUF 10.45"),
        (80045, "twd", "TWD 800.45"),
        (500, "mga", "MGA 500"),
        (999_999_999_999, "idr", "IDR 9,999,999,999.99"),
    ],
)
def test_minor_units_are_those_of_stripes_documentation(
    minor: int, currency: str, formatted: str
) -> None:
    """ISO 4217 differs in ISK and UGX; each of Stripe's examples and special cases is here."""
    assert Money.from_minor(minor, currency).formatted == formatted


def test_other_currencies_without_two_decimals_are_stripes() -> None:
    """Fifteen have none (UGX is a special case of the list), five have three."""
    without = {code for code in DECIMALS if exponent(code) == 0}

    assert len(without) == 15
    assert {code for code in DECIMALS if code not in without} == {"bhd", "jod", "kwd", "omr", "tnd"}


@pytest.mark.parametrize(
    ("quantity", "unit", "amount"),
    [("1.5", "1", 2), ("2.5", "1", 3), ("-2.5", "1", -3), ("0.000021", "0.5", 0), ("0.49", "1", 0)],
)
def test_line_amount_rounds_half_away_from_zero(quantity: str, unit: str, amount: int) -> None:
    """Each line separately, as Stripe does it."""
    assert line_amount(Decimal(quantity), Decimal(unit)) == amount


@given(QUANTITIES, UNITS)
def test_line_amount_rounds_once(quantity: Decimal, unit: Decimal) -> None:
    """All digits of quantity and unit price count, up to 15 and 12; fractions check it."""
    exact = Fraction(quantity) * Fraction(unit)
    doubled = 2 * abs(exact)
    rounded = (doubled.numerator // doubled.denominator + 1) // 2

    assert line_amount(quantity, unit) == (rounded if exact >= 0 else -rounded)


@given(QUANTITIES, UNITS)
def test_credit_mirrors_its_charge(quantity: Decimal, unit: Decimal) -> None:
    """A credit returns exactly the amount of its charge."""
    assert line_amount(-quantity, unit) == -line_amount(quantity, unit)


@given(st.integers(-(10**15), 10**15), st.sampled_from(["usd", "jpy", "kwd"]))
def test_from_minor_is_exact(minor: int, currency: str) -> None:
    """No digit is lost in the conversion."""
    major = Fraction(Money.from_minor(minor, currency).amount)

    assert major * 10 ** exponent(currency) == minor


@given(QUANTITIES, QUANTITIES)
def test_sums_are_exact(one: Decimal, other: Decimal) -> None:
    """However far apart the operands' digits are."""
    summed = Money(one, "usd") + Money(other, "usd")

    assert Fraction(summed.amount) == Fraction(one) + Fraction(other)
    assert summed - Money(other, "usd") == Money(one, "usd")


def test_currencies_do_not_mix() -> None:
    """A sum of dollars and euros is an error."""
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
def test_formatted_shows_all_digits(amount: str, currency: str, shown: str) -> None:
    """With the currency's decimals, and all digits below a cent."""
    assert Money(Decimal(amount), currency).formatted == shown


@given(
    st.decimals(
        allow_nan=False, allow_infinity=False, min_value=-(10**15), max_value=10**15, places=12
    )
)
def test_format_decimal_preserves_the_number(value: Decimal) -> None:
    """Stripe accepts no exponents, and trailing zeros would change an idempotent body."""
    text = format_decimal(value)

    assert Decimal(text) == value
    assert "E" not in text
    assert text == format_decimal(
        Decimal(f"{value:f}" + ("000" if "." in f"{value:f}" else ".000"))
    )


@pytest.mark.parametrize(
    ("value", "text"), [("-0", "0"), ("0.000", "0"), ("1E+2", "100"), ("1E-7", "0.0000001")]
)
def test_format_decimal_examples(value: str, text: str) -> None:
    """The cases that str() gets wrong."""
    assert format_decimal(Decimal(value)) == text
