"""Links into Stripe's Dashboard: what Stripe already does well is done there."""

DASHBOARD = "https://dashboard.stripe.com"


def dashboard(kind: str, object_id: str, *, livemode: bool) -> str:
    """Where Stripe shows *object_id* (*kind* is the path's word: ``customers``, ``invoices``, ``events``)."""
    return f"{DASHBOARD}/{'' if livemode else 'test/'}{kind}/{object_id}"
