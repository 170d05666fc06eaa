"""Links into Stripe's Dashboard."""

from resolvers.context import Context

DASHBOARD_URL = "https://dashboard.stripe.com"


def dashboard_url(context: Context, page: str, object_id: str) -> str:
    """URL of *object_id* in Stripe's Dashboard, in live or test mode as the API key; *page* is its path segment (``customers``)."""
    mode = "" if context.livemode else "test/"
    return f"{DASHBOARD_URL}/{mode}{page}/{object_id}"
