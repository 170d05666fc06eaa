"""A month of usage: what is owed for it, and how much of that Stripe knows."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum

import strawberry

from billing.snapshot import Snapshot
from resolvers.context import Info
from resolvers.invoice import Invoice
from schema.types.describing import graphql_enum, graphql_type
from schema.types.money import Money


@graphql_enum(
    OPEN="Usage is being counted.",
    CLOSING="The month has ended; late usage is let in for a while, then the invoice is finalized.",
    CLOSED="Its invoice is final; later usage goes on the next one.",
    HELD="Support has put billing on hold: counted, but neither told to Stripe nor finalized.",
)
class PeriodState(StrEnum):
    """Where a month stands."""

    OPEN = "OPEN"
    CLOSING = "CLOSING"
    CLOSED = "CLOSED"
    HELD = "HELD"


@graphql_enum(
    SKU="One entry for each thing that is sold.",
    APP="One entry for each Fly app.",
    REGION="One entry for each region.",
    ORGANIZATION="One entry for each linked organization.",
)
class UsageDimension(StrEnum):
    """What usage is added up by."""

    SKU = "sku"
    APP = "app"
    REGION = "region"
    ORGANIZATION = "organization"


@graphql_type
class UsageBreakdown:
    """What one SKU, app, region or organization has used, and what that comes to."""

    key: str = strawberry.field(
        description="The SKU, app, region or organization; empty for usage reported without one.",
    )
    description: str | None = strawberry.field(description="What a SKU is called on the bill.")
    quantity: Decimal = strawberry.field(
        description="How much. Across different units (by app, say) this is a sum of unlike things; go by `amount`.",
    )
    unit: str | None = strawberry.field(
        description="What `quantity` counts; null where units differ."
    )
    amount: Money = strawberry.field(description="What it comes to.")


@graphql_type
class MonthlySpend:
    """What was billed for one month."""

    month: str = strawberry.field(description="The month that was billed: `2026-11`.")
    total: Money = strawberry.field(description="The sum of its finalized invoices.")
    invoices: int = strawberry.field(description="How many there are.")


@graphql_type
class BillingPeriod:
    """A month to date, to the last recorded delta. `inStripe` + `claimed` + `pending` = `total`, always."""

    snapshot: strawberry.Private[Snapshot]
    start: datetime = strawberry.field(description="First moment of the month, UTC.")
    end: datetime = strawberry.field(description="First moment of the next month, UTC.")
    state: PeriodState = strawberry.field(description="Where the month stands.")
    in_stripe: Money = strawberry.field(description="What Stripe has confirmed on the draft.")
    claimed: Money = strawberry.field(description="What a sync is telling Stripe right now.")
    pending: Money = strawberry.field(description="What Stripe has not been told yet.")
    total: Money = strawberry.field(description="What the month comes to so far.")
    as_of: datetime = strawberry.field(description="The moment that all these numbers are of.")

    @strawberry.field
    async def invoice(self, info: Info) -> Invoice | None:
        """The Stripe draft, once there is one."""
        if self.snapshot.invoice is None:
            return None
        loaded = await info.context.loaders.invoice.load(self.snapshot.invoice)
        return Invoice.of(loaded) if loaded else None

    @strawberry.field
    async def usage(
        self, info: Info, by: UsageDimension | None = UsageDimension.SKU
    ) -> list[UsageBreakdown]:
        """What it is made of, dearest first."""
        raise NotImplementedError
