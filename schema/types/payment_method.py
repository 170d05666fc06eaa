"""The payment method type."""

import strawberry

from billing.stripe.records import PaymentMethodRecord
from resolvers.dataloaders.stripe import Loaded
from schema.decorators import graphql_type
from schema.info import Info
from schema.stripe_links import dashboard_url
from schema.types.freshness import Freshness
from schema.types.node import Node


@graphql_type
class PaymentMethod(Node):
    """A payment method that Stripe stores for a customer. No other card data is exposed."""

    customer: strawberry.Private[str | None]
    id: strawberry.ID = strawberry.field(description="Stripe payment method id, `pm_…`.")
    type: str = strawberry.field(
        description="Stripe's type of the payment method: `card`, `sepa_debit`, …"
    )
    brand: str | None = strawberry.field(
        description="Card brand (`visa`) or bank name; null when the type has none."
    )
    last4: str | None = strawberry.field(
        description="Last four digits of the card or account number; null when the type has none."
    )
    exp_month: int | None = strawberry.field(
        description="Month in which the card expires, 1 to 12; null for other types."
    )
    exp_year: int | None = strawberry.field(
        description="Year in which the card expires, four digits; null for other types."
    )

    freshness: Freshness = strawberry.field(description="Source and age of this object's data.")

    @strawberry.field
    def stripe_dashboard_url(self, info: Info) -> str | None:
        """Support only: link to the customer's page in Stripe's Dashboard; null when the payment method is detached."""
        return dashboard_url(info.context, "customers", self.customer) if self.customer else None

    @classmethod
    def from_record(cls, loaded: Loaded[PaymentMethodRecord]) -> "PaymentMethod":
        """Convert a payment method read from Stripe."""
        record = loaded.value
        return cls(
            freshness=Freshness(source=loaded.source, fetched_at=loaded.fetched_at),
            customer=record.customer,
            id=strawberry.ID(record.id),
            type=record.type,
            brand=record.brand,
            last4=record.last4,
            exp_month=record.exp_month,
            exp_year=record.exp_year,
        )
