"""What the gateway writes on Stripe's objects, by which it knows them again."""

from collections.abc import Mapping

from billing.usage import Period

# In the metadata of each of our lines.
LINE, QUANTITY, PRICE = "gw_line", "gw_quantity", "gw_price"
# In the metadata of our invoices: the month, and the last flush that reached Stripe.
PERIOD, SEQ, VERSION, EPOCH = "gw_period", "gw_seq", "gw_ver", "gw_epoch"

# Every idempotency key of a write to a customer's billing begins so; an event quotes the key of the
# request that caused it.
OUR_KEYS = "gw1:"


def period_of(metadata: object) -> Period | None:
    """The period that the *metadata* of an invoice names; None for other people's."""
    text = metadata.get(PERIOD) if isinstance(metadata, Mapping) else None
    try:
        return Period.parse(text) if isinstance(text, str) else None
    except ValueError:
        return None
