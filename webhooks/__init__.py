"""Receives Stripe's webhooks: each delivery is verified and stored before it is acknowledged.

``endpoint`` serves ``POST /webhooks/stripe``, ``signature`` verifies a delivery, ``event_parser`` parses
it, ``setup`` (``python -m webhooks``) creates or checks the endpoint at Stripe. The effects of each
event type are in ``billing.events.effects``, because the poll for undelivered events needs them too.
"""
