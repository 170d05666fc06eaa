"""``extensions.billing``: how an answer was made."""

from collections.abc import Iterator
from typing import Any

from strawberry.extensions import SchemaExtension

from billing.stripe_api import tally


class BillingReport(SchemaExtension):
    """Counts an operation's calls to Stripe, and what its loaders found in the cache."""

    def on_operation(self) -> Iterator[None]:
        """Count from the first resolver to the last."""
        with tally() as self._calls:
            yield

    def get_results(self) -> dict[str, Any]:
        """The figures of this answer, or of this event."""
        cost = self.execution_context.context.loaders.cost
        calls = self._calls.calls - sum(each.calls for each in cost.hidden)
        self._calls.calls = 0
        return {
            "billing": {
                "stripeCalls": calls,
                "cacheHits": cost.cache_hits,
                "cacheMisses": cost.cache_misses,
                "stale": cost.stale,
            }
        }
