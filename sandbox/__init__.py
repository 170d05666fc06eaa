"""A Stripe of our own for development and tests: one process, one account, no network beyond it.

A request travels: api (who, which accident) → limits (how often, one writer an object) → routes and
operations (what is meant) → forms (is it well-formed) → idempotency (once only) → customers,
catalogue, invoices, lines, finalization, payments, … (what it does) → state (all or nothing)
→ shapes (what it looks like) → webhooks (who hears of it). faults and clock make it as unfriendly
as Stripe can be; control is the way to ask, pages are for people, guesses is what we do not know.
"""
