"""Invoicing rules: what a period comes to, and the Stripe requests that bring its invoice there. Pure, no I/O.

``snapshot`` is the ledger's state of a period, ``remote_invoice`` the invoice as Stripe shows it; our lines
carry the ``metadata_keys``. ``flush_schedule`` decides when a difference is worth a call, ``diff`` computes it,
``requests`` turns it into HTTP requests. ``carry_forward`` moves what a finalized invoice left unbilled into the
next period. ``amounts`` has the figures that the API shows.
"""
