"""How much of Stripe's limits may be spent, as the operator set it."""

from dataclasses import dataclass
from typing import Self

from billing.settings import Settings


@dataclass(frozen=True, slots=True)
class Allowance:
    """A rate per second that we keep to, and how many calls may come at once on top of it."""

    rate: float
    burst: float

    @classmethod
    def within(cls, limit: float, share: float) -> Self:
        """The *share* of Stripe's *limit* as a rate; the rest is the burst, so that any second fits."""
        return cls(rate=limit * share, burst=max(2.0, limit * (1 - share)))


@dataclass(frozen=True, slots=True)
class BudgetPolicy:
    """What may be spent; *max_wait* in seconds, *reads* in 30 days, *lists* at the same time.

    Searches have an allowance of their own, smaller than an endpoint's. What a killed process held comes
    back after *lease_ms*, which is longer than the longest call.
    """

    account: Allowance
    endpoint: Allowance
    lists: int
    reads: int
    max_wait: float
    lease_ms: int = 60_000
    search: Allowance = Allowance(16, 4)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The policy that the operator set."""
        return cls(
            account=Allowance.within(settings.stripe_rate, settings.stripe_share),
            endpoint=Allowance.within(settings.stripe_endpoint_rate, settings.stripe_share),
            lists=settings.stripe_list_concurrency,
            reads=settings.stripe_read_allowance,
            max_wait=settings.stripe_max_wait,
            lease_ms=round(settings.flush_lease * 1000),
            search=Allowance.within(settings.stripe_search_rate, settings.stripe_share),
        )

    def allowance(self, endpoint: str) -> Allowance:
        """What *endpoint* may take."""
        return self.search if endpoint.endswith("/search") else self.endpoint
