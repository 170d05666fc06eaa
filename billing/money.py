"""Exact amounts, and the only rounding rule: all conversions of a quantity into cents are here.

Amounts are `Decimal` in major units (dollars) or `int` in minor units (cents), never float.
Stripe uses minor units; their number of decimals depends on the currency.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal
from functools import lru_cache

from billing.errors import MixedCurrencies

# Stripe's documentation, "Supported currencies". All others have two decimals, among them the special cases: ISK and
# UGX, which have no fractions but are still sent in hundredths (5 ISK are 500), and HUF and TWD, of which only payouts
# are whole. UGX stands in the list of zero-decimal currencies, too; its special case decides.
DECIMALS: Mapping[str, int] = {
    "bif": 0, "clp": 0, "djf": 0, "gnf": 0, "jpy": 0, "kmf": 0, "krw": 0, "mga": 0, "pyg": 0, "rwf": 0,
    "vnd": 0, "vuv": 0, "xaf": 0, "xof": 0, "xpf": 0, "bhd": 3, "jod": 3, "kwd": 3, "omr": 3, "tnd": 3,
}  # fmt: skip

# 15+12 digits of quantity times 12+12 digits of unit amount fit without rounding.
EXACT = Context(prec=80)
QUANTITY_PLACES = 12
MINOR = {places: Decimal(1).scaleb(-places) for places in (0, 2, 3)}
QUANTITY_STEP = Decimal(1).scaleb(-QUANTITY_PLACES)


@lru_cache(maxsize=256)
def exponent(currency: str) -> int:
    """Number of decimals of *currency*'s minor unit at Stripe (in any case): 0, 2 or 3."""
    return DECIMALS.get(currency.lower(), 2)


def line_amount(quantity: Decimal, unit_amount: Decimal) -> int:
    """Amount in minor units of a line of *quantity* at *unit_amount* (minor units, up to 12 places).

    Stripe rounds each line separately, half away from zero (observed; Stripe publishes no rule).
    """
    exact = EXACT.multiply(quantity, unit_amount)
    return int(exact.to_integral_value(rounding=ROUND_HALF_UP))


@dataclass(frozen=True, slots=True)
class Money:
    """An exact amount in major units of a lower-case ISO 4217 *currency*."""

    amount: Decimal
    currency: str

    @classmethod
    def from_minor(cls, minor: int | Decimal, currency: str) -> "Money":
        """Convert *minor* units (cents, possibly with sub-cent decimals)."""
        return cls(EXACT.scaleb(Decimal(minor), -exponent(currency)), currency.lower())

    @property
    def minor(self) -> int:
        """Whole minor units; decimals below are cut off."""
        return int(EXACT.scaleb(self.amount, exponent(self.currency)))

    @property
    def formatted(self) -> str:
        """Display form: ``USD 1,234.50``; a sub-cent amount keeps all of its digits."""
        unit = MINOR[exponent(self.currency)]
        shown = self.amount
        if not shown.same_quantum(unit):  # nearly all amounts came in minor units
            plain = shown.quantize(unit, context=EXACT)
            shown = plain if plain == shown else EXACT.plus(shown).normalize(EXACT)
        return f"{self.currency.upper()} {shown:,f}"

    @property
    def rounded(self) -> str:
        """Display form in whole minor units, a half away from zero as Stripe rounds a line: ``USD 1,234.50``."""
        unit = MINOR[exponent(self.currency)]
        shown = self.amount.quantize(unit, rounding=ROUND_HALF_UP, context=EXACT)
        return f"{self.currency.upper()} {shown or abs(shown):,f}"

    def __add__(self, other: "Money") -> "Money":
        self._must_match(other)
        return Money(EXACT.add(self.amount, other.amount), self.currency)

    def __sub__(self, other: "Money") -> "Money":
        self._must_match(other)
        return Money(EXACT.subtract(self.amount, other.amount), self.currency)

    def _must_match(self, other: "Money") -> None:
        if other.currency != self.currency:
            raise MixedCurrencies(self.currency, other.currency)


def format_decimal(value: Decimal) -> str:
    """Plain notation of *value* without trailing zeros, for Stripe and JSON.

    stripe-python sends ``str(Decimal)``, and Stripe does not accept ``1E-7``.
    """
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text
