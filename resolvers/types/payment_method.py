"""How a customer pays."""

import strawberry

from billing.stripe.records import PaymentMethodRecord
from resolvers.context import Context, Info
from resolvers.dataloaders.stripe import Loaded
from resolvers.types.stripe_links import dashboard
from schema.decorators import graphql_type
from schema.types.freshness import Freshness
from schema.types.node import Node


@graphql_type
class PaymentMethod(Node):
    """A way to pay that Stripe keeps for the customer; the panel never sees more of a card than this."""

    id: strawberry.ID = strawberry.field(description="Stripe's id, `pm_…`.")
    type: str = strawberry.field(description="Stripe's word for its kind: `card`, `sepa_debit`, …")
    brand: str | None = strawberry.field(description="A card's brand: `visa`.")
    last4: str | None = strawberry.field(description="The last four digits.")
    exp_month: int | None = strawberry.field(description="A card's month of expiry, 1 to 12.")
    exp_year: int | None = strawberry.field(description="A card's year of expiry, four digits.")

    freshness: Freshness = strawberry.field(description="How old this is, and where it came from.")

    @strawberry.field
    def stripe_dashboard_url(self, info: Info) -> str | None:
        """Support only: its customer in Stripe's Dashboard, who has it listed; null once it is detached."""
        return dashboard(info.context, "customers", self.owner) if self.owner else None

    @classmethod
    async def find(cls, context: Context, payment_method: str) -> "PaymentMethod | None":
        """The one with this id, asked of Stripe; whether it may be seen is the caller's to check."""
        loaded = await context.loaders.payment_method.load(payment_method)
        return cls.of(loaded) if loaded else None

    @classmethod
    def of(cls, loaded: Loaded[PaymentMethodRecord]) -> "PaymentMethod":
        """The payment method as clients see it."""
        record = loaded.value
        return cls(
            freshness=Freshness(source=loaded.source, fetched_at=loaded.fetched_at),
            owner=record.customer,
            id=strawberry.ID(record.id),
            type=record.type,
            brand=record.brand,
            last4=record.last4,
            exp_month=record.exp_month,
            exp_year=record.exp_year,
        )
