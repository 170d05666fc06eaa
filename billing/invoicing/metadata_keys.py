"""Metadata keys and the idempotency prefix by which the gateway recognizes its own objects at Stripe."""

from collections.abc import Mapping

from billing.usage import Period

# In the metadata of each of our lines.
LINE, QUANTITY, PRICE = "gw_line", "gw_quantity", "gw_price"
# In the metadata of our invoices: the period, and the last flush that reached Stripe.
PERIOD, SEQ, VERSION, EPOCH = "gw_period", "gw_seq", "gw_ver", "gw_epoch"

# The prefix of every idempotency key of ours; an event quotes the key of the request that caused it.
IDEMPOTENCY_PREFIX = "gw1:"


def period_of(metadata: object) -> Period | None:
    """Return the period that an invoice's *metadata* names; None if the invoice is not ours."""
    text = metadata.get(PERIOD) if isinstance(metadata, Mapping) else None
    try:
        return Period.parse(text) if isinstance(text, str) else None
    except ValueError:
        return None
