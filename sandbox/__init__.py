"""A Stripe of our own for development and tests: one process, one account, no network beyond it.

A request travels: api (who, how often, which accident, once only) → actions (which operation) →
forms (well-formed, by the SDK's types) → resources, customers, lines, invoices (what it does) →
account (all or nothing) → shapes (what it looks like) → webhooks (who hears of it). sdk says what
there is, hostility is what makes Stripe unfriendly, control the way to ask for it, pages are for
people, about.txt says what is simulated, what is not and what is guessed.
"""
