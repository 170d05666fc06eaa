"""The flush: brings the Stripe invoice of one customer and period up to date with the ledger.

``flush.flush`` is the entry; it takes the dependencies and durations of ``policy`` and returns a result of
``outcome``, which also has the steps that its branches share. ``state`` is what a flush knows, ``execution`` its
writes. The branches are ``on_hold`` for customers on hold and ``closing`` for a period that ends.
"""
