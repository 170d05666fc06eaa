"""Billing's part of a GraphQL response: ``extensions.billing``, and the errors that billing raises."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from graphql import GraphQLError

from billing.errors import Refused, Unavailable
from billing.stripe import count_calls
from gateway.graphql.errors import request_error
from resolvers.context import Context


@contextmanager
def billing_extension(context: Context) -> Iterator[Callable[[], dict[str, Any]]]:
    """Count an operation's calls to Stripe.

    Yields a function that returns the extension for one response or subscription event. At the end
    the dataloaders are dropped.
    """
    with count_calls() as sent:

        def extension() -> dict[str, Any]:
            stats = context.loaders.stats
            calls = sent.calls - sum(hidden.calls for hidden in stats.hidden_calls)
            sent.calls = 0
            counts = {
                "stripeCalls": calls,
                "cacheHits": stats.cache_hits,
                "cacheMisses": stats.cache_misses,
                "stale": stats.stale,
            }
            return {"billing": counts}

        try:
            yield extension
        finally:
            context.loaders.clear()


def to_graphql_error(error: BaseException) -> GraphQLError | None:
    """Return the GraphQL error for an expected error outside of a payload; None for a bug."""
    if isinstance(error, Refused):
        return request_error(error.code, error.message)
    if isinstance(error, Unavailable):
        return request_error(error.code, error.message, retryAfter=error.whole_seconds)
    return None
