"""The money type: an amount and its currency."""

from decimal import Decimal
from typing import Self

import strawberry

import billing.money
from schema.decorators import graphql_type


@graphql_type
class Money:
    """An exact amount in one currency. It has fractions of a cent until Stripe rounds a line."""

    exact: strawberry.Private[billing.money.Money]
    amount: Decimal = strawberry.field(
        description='Exact amount in major units (dollars, not cents): "12.5" is twelve dollars and fifty cents.',
    )
    currency: str = strawberry.field(
        description="ISO 4217 code in lower case, as in Stripe: `usd`."
    )
    formatted: str = strawberry.field(
        description="Exact amount for display, with every fraction of a cent: `USD 1,234.50`, `USD 0.000021`."
    )

    @strawberry.field
    def rounded(self) -> str:
        """Amount for display in whole minor units, a half rounded away from zero, as Stripe bills a line: `USD 0.00`.

        Always with the decimals of its currency, so its digits are an integer of minor units. Sums of rounded
        amounts may differ from the rounded sum.
        """
        return self.exact.rounded

    @classmethod
    def from_money(cls, money: billing.money.Money) -> Self:
        """Convert *money*."""
        return cls(
            exact=money,
            amount=money.amount,
            currency=money.currency,
            formatted=money.formatted,
        )

    @classmethod
    def from_minor(cls, minor: int | Decimal, currency: str) -> Self:
        """Convert *minor* units (cents) of *currency*."""
        return cls.from_money(billing.money.Money.from_minor(minor, currency))
