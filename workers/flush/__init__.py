"""The flush: brings the Stripe invoice of one customer and period up to date with the ledger.

``flush.flush`` is the entry; it takes the dependencies and durations of ``policy`` and returns a result of
``outcome``. ``state`` is what a flush knows, ``execution`` its writes, ``steps`` what its branches share. The branches are ``on_hold`` for customers on hold and ``closing`` for a period that ends.
"""
