"""What happens behind the panel's back, on arq's workers; jobs carry signals, the ledger carries state.

``main`` wires arq and its loops, ``sync`` tells Stripe what the ledger knows, ``close`` ends a period,
``reconcile`` compares the two, ``inbox`` acts on what Stripe told us, ``events_sweep`` on what it could not.
"""
