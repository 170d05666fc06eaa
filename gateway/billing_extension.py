"""Billing's part of a GraphQL response: its cost, ``extensions.billing``, and the errors that billing raises."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from graphql import GraphQLError

from billing.budget.caller import calls_on_behalf_of
from billing.errors import Refused, Unavailable
from billing.stripe import CallCount, count_calls
from gateway.graphql.errors import request_error
from resolvers.context import Context, Role

# Cost points, of 20,000 that refill at 1,000 a second. Looking up an unknown id or cursor calls Stripe each
# time, and invented ones must not use up the Stripe budget.
MISSED_LOOKUP_COST = 500
STRIPE_CALL_COST = 50
ROWS_PER_POINT = 10


class BillingMeter:
    """Counts what an operation with *context* asks of Stripe, whose calls are counted in *sent*.

    Calls for objects that the caller may not see are left out: they are missed lookups.
    """

    def __init__(self, context: Context, sent: CallCount) -> None:
        self._context = context
        self._sent = sent

    def take_cost(self) -> int:
        """Return the cost of missed lookups, calls to Stripe and computed rows since the last call."""
        context, stats = self._context, self._context.loaders.stats
        missed = context.missed_lookups + stats.missed_lookups
        context.missed_lookups = stats.missed_lookups = 0
        rows, context.rows_computed = context.rows_computed, 0
        lookups = MISSED_LOOKUP_COST * max(missed, 0) + STRIPE_CALL_COST * self._calls()
        return lookups + rows // ROWS_PER_POINT

    def entries(self) -> dict[str, Any]:
        """Return ``extensions.billing`` of one response or subscription event."""
        calls, stats = self._calls(), self._context.loaders.stats
        self._sent.calls = 0
        counts = {
            "stripeCalls": calls,
            "cacheHits": stats.cache_hits,
            "cacheMisses": stats.cache_misses,
            "stale": stats.stale,
        }
        return {"billing": counts}

    def _calls(self) -> int:
        hidden = sum(hidden.calls for hidden in self._context.loaders.stats.hidden_calls)
        return max(self._sent.calls - hidden, 0)


@contextmanager
def measure_billing(context: Context) -> Iterator[BillingMeter]:
    """Measure an operation, whose calls to Stripe count against a customer's share. At the end the dataloaders are dropped."""
    viewer = context.viewer
    caller = viewer.caller if viewer.role is Role.CUSTOMER else ""
    with calls_on_behalf_of(caller), count_calls() as sent:
        try:
            yield BillingMeter(context, sent)
        finally:
            context.loaders.clear()


def to_graphql_error(error: BaseException) -> GraphQLError | None:
    """Return the GraphQL error for an expected error outside of a payload; None for a bug."""
    if isinstance(error, Refused):
        return request_error(error.code, error.message)
    if isinstance(error, Unavailable):
        return request_error(error.code, error.message, retryAfter=error.whole_seconds)
    return None
