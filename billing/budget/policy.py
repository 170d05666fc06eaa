"""Limits of the Stripe budget, from the operator's settings."""

from dataclasses import dataclass
from typing import Self

from billing.settings import Settings

# A caller that reads as much as it may every day uses up the ration of 30 days in so many: half of it.
MIN_CALLER_DAYS = 60


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A *rate* in calls per second, and a *burst* of calls that may exceed it at once."""

    rate: float
    burst: float

    @classmethod
    def from_share(cls, limit: float, share: float) -> Self:
        """The *share* of Stripe's *limit* as the rate and the rest as the burst: together, the limit."""
        return cls(rate=limit * share, burst=max(2.0, limit * (1 - share)))


@dataclass(frozen=True, slots=True)
class BudgetPolicy:
    """The limits: *list_slots* concurrent list calls, *read_ration* reads in 30 days, *max_wait* seconds.

    A caller reads at most *caller_reads* times a day (UTC), and opens *portal_sessions* for a customer in a minute. Searches have their own rate limit, smaller than an endpoint's. The permits of a killed process expire
    after *lease_ms*, which is longer than the longest call.
    """

    account: RateLimit
    endpoint: RateLimit
    list_slots: int
    read_ration: int
    max_wait: float
    caller_reads: int = 5_000
    portal_sessions: int = 10
    lease_ms: int = 60_000
    search: RateLimit = RateLimit(16, 4)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The policy of the operator's settings."""
        return cls(
            account=RateLimit.from_share(settings.stripe_rate, settings.stripe_share),
            endpoint=RateLimit.from_share(settings.stripe_endpoint_rate, settings.stripe_share),
            list_slots=settings.stripe_list_concurrency,
            read_ration=settings.stripe_read_allowance,
            max_wait=settings.stripe_max_wait,
            caller_reads=min(
                settings.stripe_customer_reads,
                max(1, settings.stripe_read_allowance // MIN_CALLER_DAYS),
            ),
            portal_sessions=settings.portal_sessions_per_minute,
            lease_ms=round(settings.flush_lease * 1000),
            search=RateLimit.from_share(settings.stripe_search_rate, settings.stripe_share),
        )

    def rate_limit(self, endpoint: str) -> RateLimit:
        """The rate limit of *endpoint*."""
        return self.search if endpoint.endswith("/search") else self.endpoint
