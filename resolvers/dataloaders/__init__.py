"""Loaders: each object is read at most once per operation.

``stripe`` and ``ledger`` are the loaders, ``base`` shares the loads of one operation, ``cached_reads`` counts the calls
to Stripe and collects the cache dependencies of the response.
"""
