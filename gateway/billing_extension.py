"""``extensions.billing``: how an answer was made."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from billing.stripe import tally
from resolvers.context import Context


@contextmanager
def billing_report(context: Context) -> Iterator[Callable[[], dict[str, Any]]]:
    """Count an operation's calls to Stripe; what is yielded tells of an answer, or of an event, at its end.

    What was loaded for it goes with it.
    """
    with tally() as sent:

        def figures() -> dict[str, Any]:
            cost = context.loaders.cost
            calls = sent.calls - sum(each.calls for each in cost.hidden)
            sent.calls = 0
            told = {
                "stripeCalls": calls,
                "cacheHits": cost.cache_hits,
                "cacheMisses": cost.cache_misses,
                "stale": cost.stale,
            }
            return {"billing": told}

        try:
            yield figures
        finally:
            context.loaders.forget()
