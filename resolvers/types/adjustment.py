"""Support's corrections of usage."""

from datetime import datetime
from decimal import Decimal

import strawberry

import billing.ledger
from billing.money import line_amount
from billing.usage import Price
from resolvers.context import Context, Info
from resolvers.types.stripe_links import dashboard
from resolvers.types.timestamps import moment
from schema.decorators import graphql_type
from schema.types.money import Money
from schema.types.node import Node


@graphql_type
class Adjustment(Node):
    """A correction by Support: a line of its own, so that recorded usage is never rewritten."""

    id: strawberry.ID = strawberry.field(description="Ours: `adj_…`.")
    price: strawberry.Private[str]
    period: str = strawberry.field(description="The month whose bill it corrects, as `2026-10`.")
    sku: str = strawberry.field(description="The SKU that it corrects.")
    quantity: Decimal = strawberry.field(description="By how much; negative gives credit.")
    amount: Money = strawberry.field(description="What that comes to.")
    reason: str = strawberry.field(description="Why.")
    by: str = strawberry.field(description="Who: the subject of the token.")
    at: datetime = strawberry.field(description="When.")

    @strawberry.field
    def stripe_dashboard_url(self, info: Info) -> str:
        """The price that it counts by, in Stripe's Dashboard."""
        return dashboard(info.context, "prices", self.price)

    @classmethod
    async def find(cls, context: Context, adjustment: str) -> "Adjustment | None":
        """The correction with this id; whether it may be seen is the caller's to check."""
        found = await context.services.ledger.adjustment(adjustment)
        if found is None:
            return None
        prices = await context.services.catalogue.by_id([found.price])
        return cls.of(found, prices[found.price])

    @classmethod
    def of(cls, adjustment: billing.ledger.Adjustment, price: Price) -> "Adjustment":
        """*adjustment*, counted by *price*, as clients see it."""
        amount = line_amount(adjustment.quantity, price.unit_amount)
        return cls(
            owner=adjustment.customer,
            id=strawberry.ID(adjustment.id),
            price=price.id,
            period=str(adjustment.period),
            sku=adjustment.sku,
            quantity=adjustment.quantity,
            amount=Money.of_minor(amount, price.currency),
            reason=adjustment.reason,
            by=adjustment.by,
            at=moment(adjustment.at_ms),
        )
