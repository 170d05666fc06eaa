"""What happens behind the panel's back, on arq's workers; jobs carry signals, the ledger carries state.

``main`` wires arq and its loops, ``dispatch`` takes what is due. ``sync`` tells Stripe what the ledger knows,
by the ``steps`` of a ``run``, which begins with a ``picture`` and sees the world through ``ports``; ``held`` and
``close`` are its branches for customers on hold and for a period that ends. ``reconcile`` has ledger and Stripe
compared, ``inbox`` acts on Stripe's events, ``events_sweep`` on those that never arrived; ``figures`` shows Prometheus
what a worker counts.
"""
