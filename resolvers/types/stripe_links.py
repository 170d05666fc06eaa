"""Links into Stripe's Dashboard: what Stripe already does well is done there."""

from resolvers.context import Context

DASHBOARD = "https://dashboard.stripe.com"


def dashboard(context: Context, page: str, object_id: str) -> str:
    """Where Stripe shows *object_id*, live or test as our key is; *page* is the path's word (``customers``)."""
    mode = "" if context.doors.settings.livemode else "test/"
    return f"{DASHBOARD}/{mode}{page}/{object_id}"
