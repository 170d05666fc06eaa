"""The money type: an amount and its currency."""

from decimal import Decimal
from typing import Self

import strawberry

import billing.money
from schema.decorators import graphql_type


@graphql_type
class Money:
    """An exact amount in one currency. It has fractions of a cent until Stripe rounds a line."""

    amount: Decimal = strawberry.field(
        description='Exact amount in major units (dollars, not cents): "12.5" is twelve dollars and fifty cents.',
    )
    currency: str = strawberry.field(
        description="ISO 4217 code in lower case, as in Stripe: `usd`."
    )
    formatted: str = strawberry.field(description="Amount formatted for display: `USD 1,234.50`.")

    @classmethod
    def from_money(cls, money: billing.money.Money) -> Self:
        """Convert *money*."""
        return cls(amount=money.amount, currency=money.currency, formatted=money.formatted)

    @classmethod
    def from_minor(cls, minor: int | Decimal, currency: str) -> Self:
        """Convert *minor* units (cents) of *currency*."""
        return cls.from_money(billing.money.Money.from_minor(minor, currency))
