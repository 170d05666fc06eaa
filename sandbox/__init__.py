"""A Stripe of our own for development and tests: one process, one account, no network beyond it.

A request travels: api (who, how often, once only) → routes (which operation) → forms (is it
well-formed) → customers, catalogue, invoices, lines, payments, credit_notes (what it does)
→ state (all or nothing) → shapes (what it looks like) → webhooks (who hears of it).
faults, limits and clock make it as unfriendly as Stripe can be; control is the way to ask.
"""
