"""The real flush, close and ledger code, driven through every accident, one seed at a time.

``python -m tests.simulation --schedules 10000 --seed 1`` runs schedules and prints what failed; a
failing schedule is repeated, alone, by its own seed. ``world`` owns time, network, crashes and people;
``stripe_model`` is Stripe; ``oracle`` knows what is owed by its own arithmetic; ``directed`` has schedules that
are written by hand. ``year`` is the larger world. ``mutations`` switches one of the ``protections`` off at a time, to show
that an oracle would notice.
"""
