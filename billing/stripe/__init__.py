"""Stripe: the only package that calls its API.

``client`` makes each call within the budget, over the ``transport``; ``errors`` translates failed ones.
``records`` are Stripe's objects, ``price_catalog`` is the price of each SKU.
"""

from billing.stripe.client import (
    API_VERSION,
    ApiResponse,
    CallCount,
    StripeApi,
    boottime,
    count_calls,
)

__all__ = ["API_VERSION", "ApiResponse", "CallCount", "StripeApi", "boottime", "count_calls"]
