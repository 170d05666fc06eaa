"""The doctor: a read-only check of a Stripe account before the gateway bills with it.

``account.StripeAccount`` reads, and has no way to write. Each function in ``checks`` looks at one thing and
returns findings with their cure. ``report`` runs all and prints them; ``cli`` is ``python -m billing doctor``.
"""
