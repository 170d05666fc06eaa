"""``extensions.billing``: calls to Stripe, cache hits and cache misses behind a GraphQL response."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from billing.stripe import count_calls
from resolvers.context import Context


@contextmanager
def billing_extension(context: Context) -> Iterator[Callable[[], dict[str, Any]]]:
    """Count an operation's calls to Stripe.

    Yields a function that returns the extension for one response or subscription event. At the end
    the dataloaders are dropped.
    """
    with count_calls() as sent:

        def extension() -> dict[str, Any]:
            cost = context.loaders.stats
            calls = sent.calls - sum(hidden.calls for hidden in cost.hidden_calls)
            sent.calls = 0
            counts = {
                "stripeCalls": calls,
                "cacheHits": cost.cache_hits,
                "cacheMisses": cost.cache_misses,
                "stale": cost.stale,
            }
            return {"billing": counts}

        try:
            yield extension
        finally:
            context.loaders.clear()
