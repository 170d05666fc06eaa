"""Support's stop sign for a customer's billing."""

from datetime import datetime

import strawberry

import billing.draft.snapshot
from resolvers.nouns.moments import moment
from schema.types.describing import graphql_type


@graphql_type
class BillingHold:
    """Billing is stopped: usage is counted, but Stripe is told nothing and nothing is finalized."""

    reason: str = strawberry.field(description="Why.")
    by: str = strawberry.field(description="Who: the subject of the token.")
    since: datetime = strawberry.field(description="Since when.")

    @classmethod
    def of(cls, hold: billing.draft.snapshot.Hold) -> "BillingHold":
        """*hold* as clients see it."""
        return cls(reason=hold.reason, by=hold.by, since=moment(hold.since_ms))
