"""Reads that go past the cache, for what no event names in time."""

from http import HTTPStatus
from typing import Any

from billing.budget import Lane
from billing.errors import StripeRejected
from billing.stripe_api import StripeApi


async def read_if_there(stripe: StripeApi, path: str) -> dict[str, Any] | None:
    """What Stripe has at *path* now, None when it has nothing there."""
    try:
        return await stripe.read(path, lane=Lane.SUPPORT)
    except StripeRejected as refusal:
        if refusal.status == HTTPStatus.NOT_FOUND:
            return None
        raise
