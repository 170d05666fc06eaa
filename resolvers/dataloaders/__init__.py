"""DataLoaders: each object is loaded at most once per operation.

``stripe`` and ``ledger`` are the loaders; ``base`` is aiodataloader made safe under cancellation.
``stripe_queries`` lists every GET of Stripe, ``cached_reads`` makes it through the cache and counts the calls,
``selection`` inspects the fields selected below the current one.
"""
