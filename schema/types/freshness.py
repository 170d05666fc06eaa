"""How old a number on the screen is."""

from datetime import datetime

import strawberry

from billing.cache.local_cache import Source
from schema.decorators import graphql_enum, graphql_type

graphql_enum(
    "FreshnessSource",
    STRIPE="Asked of Stripe for this very answer.",
    CACHE="Kept from an earlier answer of Stripe's; no change has been announced since.",
    STALE="Stripe could not be reached: the last known state, which may be out of date.",
)(Source)


@graphql_type
class Freshness:
    """How old what is shown is, and where it came from."""

    source: Source = strawberry.field(description="Where it came from.")
    fetched_at: datetime = strawberry.field(description="When Stripe said so.")
