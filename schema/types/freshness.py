"""The freshness type: source and age of data from Stripe."""

from datetime import datetime

import strawberry

from billing.cache.local_cache import Source
from schema.decorators import graphql_enum, graphql_type

graphql_enum(
    "FreshnessSource",
    STRIPE="Read from Stripe for this response.",
    CACHE="Read from the cache; Stripe has announced no change since it was stored.",
    STALE="Last known data, possibly out of date, because Stripe could not be reached.",
)(Source)


@graphql_type
class Freshness:
    """Source and age of data from Stripe."""

    source: Source = strawberry.field(description="Source that the data was read from.")
    fetched_at: datetime = strawberry.field(description="Time at which Stripe returned the data.")
