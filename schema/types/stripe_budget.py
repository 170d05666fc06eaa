"""The Stripe budget type: remaining rate limits, and the calls that wait."""

from datetime import datetime

import strawberry

from billing.budget.state import BudgetState
from schema.decorators import graphql_type


@graphql_type
class BudgetLane:
    """A priority lane for calls to Stripe; lanes earlier in the list are served first."""

    lane: str = strawberry.field(
        description="Name of the lane: `customer`, `support`, `close`, `interval` or `background`."
    )
    waiting: int = strawberry.field(description="Number of calls that wait in this lane.")


@graphql_type
class EndpointBudget:
    """Rate limit of one Stripe endpoint, shared by all customers."""

    endpoint: str = strawberry.field(
        description="HTTP method and path template, such as `GET /v1/invoices/{id}`."
    )
    per_second: float = strawberry.field(
        description="Calls allowed per second; reduced when Stripe rate limits a call, then raised again step by step.",
    )
    available: float = strawberry.field(description="Number of calls that can be sent immediately.")
    throttled: int = strawberry.field(
        description="Number of calls that Stripe has rejected with a rate limit error."
    )


@graphql_type
class StripeBudget:
    """Remaining rate limits and read allowance at Stripe, shared by all processes of the gateway."""

    lanes: list[BudgetLane] = strawberry.field(
        description="Calls waiting in each priority lane, highest priority first."
    )
    endpoints: list[EndpointBudget] = strawberry.field(
        description="Rate limit of each endpoint called so far."
    )
    limited_until: datetime | None = strawberry.field(
        description="Time at which the pause after Stripe's last rate limit error ends; null when there is none.",
    )
    reads: int = strawberry.field(
        description="Number of reads from Stripe in the last 30 days (UTC), including today.",
    )
    read_allowance: int = strawberry.field(
        description="Number of reads allowed in 30 days; background reads stop at 80 % of it.",
    )

    @classmethod
    def from_state(cls, state: BudgetState) -> "StripeBudget":
        """Convert the *state* of the budget."""
        return cls(
            lanes=[BudgetLane(lane=lane, waiting=waiting) for lane, waiting in state.lanes],
            endpoints=[
                EndpointBudget(
                    endpoint=endpoint.endpoint,
                    per_second=endpoint.per_second,
                    available=endpoint.available,
                    throttled=endpoint.throttled,
                )
                for endpoint in state.endpoints
            ],
            limited_until=state.limited_until,
            reads=state.reads_used,
            read_allowance=state.read_allowance,
        )
