"""The hold types: a stop of one customer's billing."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import strawberry

import billing.invoicing.snapshot
from billing.ledger import ActiveHold
from schema.decorators import graphql_type
from schema.info import Info, note_selection
from schema.scalars import to_datetime

if TYPE_CHECKING:
    from schema.types.customer import Customer


@graphql_type
class BillingHold:
    """A hold on a customer's billing: usage is counted, but nothing is sent to Stripe or finalized."""

    reason: str = strawberry.field(description="Reason for the hold.")
    by: str = strawberry.field(
        description="`sub` claim of the agent's token; `gateway` when a voided invoice caused the hold."
    )
    since: datetime = strawberry.field(description="Time at which the hold was placed.")

    @classmethod
    def from_record(cls, hold: billing.invoicing.snapshot.Hold) -> "BillingHold":
        """Convert a *hold* of a snapshot."""
        return cls(reason=hold.reason, by=hold.by, since=to_datetime(hold.since_ms))


@graphql_type
class Hold:
    """An active hold in the list of all holds: a `BillingHold` with its customer."""

    customer_id: strawberry.ID = strawberry.field(
        description="Stripe id of the customer on hold, `cus_…`."
    )
    reason: str = strawberry.field(description="Reason for the hold.")
    by: str = strawberry.field(
        description="`sub` claim of the agent's token; `gateway` when a voided invoice caused the hold."
    )
    since: datetime = strawberry.field(description="Time at which the hold was placed.")

    @strawberry.field
    async def customer(
        self, info: Info
    ) -> Annotated["Customer", strawberry.lazy("schema.types.customer")] | None:
        """Customer on hold, read from Stripe; null when Stripe has deleted it."""
        from schema.types.customer import Customer  # noqa: PLC0415 customers have holds

        note_selection(info)
        loaded = await info.context.loaders.customer(self.customer_id)
        return Customer.from_record(loaded) if loaded else None

    @classmethod
    def from_record(cls, active: ActiveHold) -> "Hold":
        """Convert an *active* hold of the ledger."""
        hold = active.hold
        return cls(
            customer_id=strawberry.ID(active.customer),
            reason=hold.reason,
            by=hold.by,
            since=to_datetime(hold.since_ms),
        )
