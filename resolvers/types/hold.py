"""Support's stop sign for a customer's billing."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import strawberry

import billing.invoicing.snapshot
from billing.ledger import StandingHold
from resolvers.context import Info
from resolvers.types.timestamps import moment
from schema.decorators import graphql_type

if TYPE_CHECKING:
    from resolvers.types.customer import Customer


@graphql_type
class BillingHold:
    """Billing is stopped: usage is counted, but Stripe is told nothing and nothing is finalized."""

    reason: str = strawberry.field(description="Why.")
    by: str = strawberry.field(description="Who: the subject of the token.")
    since: datetime = strawberry.field(description="Since when.")

    @classmethod
    def of(cls, hold: billing.invoicing.snapshot.Hold) -> "BillingHold":
        """*hold* as clients see it."""
        return cls(reason=hold.reason, by=hold.by, since=moment(hold.since_ms))


@graphql_type
class Hold:
    """A `BillingHold` in the list of all: it says whose billing is stopped as well."""

    customer_id: strawberry.ID = strawberry.field(description="Whose billing is stopped.")
    reason: str = strawberry.field(description="Why.")
    by: str = strawberry.field(
        description="Who: the subject of the token; `gateway` after an invoice was voided."
    )
    since: datetime = strawberry.field(description="Since when.")

    @strawberry.field
    async def customer(
        self, info: Info
    ) -> Annotated["Customer", strawberry.lazy("resolvers.types.customer")] | None:
        """The same customer, read from Stripe; null when Stripe has deleted it."""
        from resolvers.types.customer import Customer  # noqa: PLC0415 customers have holds

        info.context.look_ahead(info)
        return await Customer.find(info.context, self.customer_id)

    @classmethod
    def of(cls, standing: StandingHold) -> "Hold":
        """*standing* as clients see it."""
        hold = standing.hold
        return cls(
            customer_id=strawberry.ID(standing.customer),
            reason=hold.reason,
            by=hold.by,
            since=moment(hold.since_ms),
        )
