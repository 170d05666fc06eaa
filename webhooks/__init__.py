"""Stripe says that something may have changed: believed only when signed, kept before it is answered.

``signature`` decides whether a delivery is Stripe's, ``skim`` reads it, ``endpoint`` is the door
(``POST /webhooks/stripe``), ``setup`` (``python -m webhooks``) creates or checks the endpoint at
Stripe. The table in ``billing.events.effects`` says what follows from each type of event; it is there
because the sweep that recovers events reads it too.
"""
