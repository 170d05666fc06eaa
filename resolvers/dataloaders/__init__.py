"""What an operation reads, each thing once.

``loaders`` (of Stripe's objects) and ``ledger_loaders`` are what resolvers ask; each is a ``loader``, aiodataloader
made safe to leave. ``gets`` is every GET of Stripe's that answers a field, ``reading`` makes it through the cache
and notes its cost, ``selection`` looks ahead at what is going to be asked for.
"""
