"""Stripe: the only package that calls its API.

``reader`` answers reads: it gets the objects of ``resources`` (path, parameters, cache entry and record of each
GET) through the cache, as ``records``. ``client`` makes each call within the budget, over the ``transport``;
``errors`` translates failed ones. ``price_catalog`` is the price of each SKU.
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
