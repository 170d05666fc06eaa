"""Stripe's API: the one room that calls Stripe, and what its answers are made into.

``StripeApi`` (in ``api``) makes each call within the budget, over the transport in ``wire``; ``failures`` says
what a failed one means. ``records`` are Stripe's objects as far as they are shown, ``catalogue`` is what each
SKU costs.
"""

from billing.stripe.client import API_VERSION, Answer, StripeApi, Tally, boottime, tally

__all__ = ["API_VERSION", "Answer", "StripeApi", "Tally", "boottime", "tally"]
