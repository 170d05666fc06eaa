"""A larger world: a year with retention, changing prices, lost ledgers, and people who act at any time.

``world`` is one schedule and ``kinds`` the troubles in it. Real are the ledger, the flush, the close, the
admission of usage, the price catalog, Support's mutations, the inbox of events and the operator's commands.
``account`` is the Stripe account, ``dashboard`` the people who use it, ``producers`` send the usage, ``support``
and ``operator`` act on the gateway, ``machine`` is the ledger's server. ``books`` say what the ledger has counted,
and ``oracle`` compares them with the invoices.
"""
