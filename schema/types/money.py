"""An amount and its currency, as clients see it."""

from decimal import Decimal
from typing import Self

import strawberry

import billing.money
from schema.decorators import graphql_type


@graphql_type
class Money:
    """An exact amount. Amounts below a cent exist until Stripe has rounded a line."""

    amount: Decimal = strawberry.field(
        description='In major units (dollars, not cents), exact: "12.5" is twelve dollars fifty.',
    )
    currency: str = strawberry.field(
        description="ISO 4217 in lower case, as Stripe writes it: `usd`."
    )
    formatted: str = strawberry.field(description="For people: `USD 1,234.50`.")

    @classmethod
    def of(cls, money: billing.money.Money) -> Self:
        """*money* as clients see it."""
        return cls(amount=money.amount, currency=money.currency, formatted=money.formatted)

    @classmethod
    def of_minor(cls, minor: int | Decimal, currency: str) -> Self:
        """*minor* units (cents) of *currency* as clients see it."""
        return cls.of(billing.money.Money.of_minor(minor, currency))
