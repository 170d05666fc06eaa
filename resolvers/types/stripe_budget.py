"""What is left of Stripe's rate allowance, and who is waiting for it."""

from datetime import datetime

import strawberry

from billing.budget.state import BudgetState
from schema.decorators import graphql_type


@graphql_type
class BudgetLane:
    """One class of callers; the first ones in the list go first."""

    lane: str = strawberry.field(
        description="Who: `customer`, `support`, `close`, `interval`, `background`."
    )
    waiting: int = strawberry.field(description="How many calls wait for their turn.")


@graphql_type
class EndpointBudget:
    """One of Stripe's endpoints: every customer shares its allowance."""

    endpoint: str = strawberry.field(description="Method and path template.")
    per_second: float = strawberry.field(
        description="Calls a second that we allow ourselves; shrinks when Stripe refuses, then grows back.",
    )
    available: float = strawberry.field(description="Calls that could go out at once.")
    throttled: int = strawberry.field(description="How often Stripe has refused for its rate.")


@graphql_type
class StripeBudget:
    """What is left of Stripe's rate allowance, shared by every process of ours."""

    lanes: list[BudgetLane] = strawberry.field(description="Who is waiting, most urgent first.")
    endpoints: list[EndpointBudget] = strawberry.field(
        description="Each endpoint that was used lately."
    )
    limited_until: datetime | None = strawberry.field(
        description="Until when Stripe asked us to wait; null when it did not.",
    )
    reads: int = strawberry.field(
        description="What we have read at Stripe in the last 30 days (UTC), today included.",
    )
    read_allowance: int = strawberry.field(
        description="How much we allow ourselves to read in 30 days; in the background we stop at 80 % of it.",
    )

    @classmethod
    def of(cls, state: BudgetState) -> "StripeBudget":
        """*state* as clients see it."""
        return cls(
            lanes=[BudgetLane(lane=lane, waiting=waiting) for lane, waiting in state.lanes],
            endpoints=[
                EndpointBudget(
                    endpoint=each.endpoint,
                    per_second=each.per_second,
                    available=each.available,
                    throttled=each.throttled,
                )
                for each in state.endpoints
            ],
            limited_until=state.limited_until,
            reads=state.reads,
            read_allowance=state.read_allowance,
        )
