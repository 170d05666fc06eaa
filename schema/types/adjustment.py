"""The adjustment type: a correction of usage made by Support."""

from datetime import datetime
from decimal import Decimal

import strawberry

from billing.money import line_amount
from resolvers.adjustments import PricedAdjustment
from schema.decorators import graphql_type
from schema.info import Info
from schema.scalars import to_datetime
from schema.stripe_links import dashboard_url
from schema.types.money import Money
from schema.types.node import Node


@graphql_type
class Adjustment(Node):
    """A correction of usage made by Support. It has an invoice line of its own, so recorded usage is never rewritten."""

    id: strawberry.ID = strawberry.field(description="Adjustment id of this gateway, `adj_…`.")
    price: strawberry.Private[str]
    period: str = strawberry.field(description="Month whose bill is corrected, as `2026-10`.")
    sku: str = strawberry.field(description="SKU whose usage is corrected.")
    quantity: Decimal = strawberry.field(
        description="Quantity added to the usage, in the unit of the price; negative for a credit."
    )
    amount: Money = strawberry.field(description="Amount of the adjustment; negative for a credit.")
    reason: str = strawberry.field(description="Reason given by the agent.")
    by: str = strawberry.field(description="`sub` claim of the agent's token.")
    at: datetime = strawberry.field(description="Time at which the adjustment was made.")

    @strawberry.field
    def stripe_dashboard_url(self, info: Info) -> str:
        """Link to the price of the SKU in Stripe's Dashboard."""
        return dashboard_url(info.context, "prices", self.price)

    @classmethod
    def from_record(cls, record: PricedAdjustment) -> "Adjustment":
        """Convert an adjustment; its amount is computed with its price."""
        adjustment, price = record
        amount = line_amount(adjustment.quantity, price.unit_amount)
        return cls(
            id=strawberry.ID(adjustment.id),
            price=price.id,
            period=str(adjustment.period),
            sku=adjustment.sku,
            quantity=adjustment.quantity,
            amount=Money.from_minor(amount, price.currency),
            reason=adjustment.reason,
            by=adjustment.by,
            at=to_datetime(adjustment.at_ms),
        )
