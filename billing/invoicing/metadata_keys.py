"""Metadata keys and the idempotency prefix by which the gateway recognizes its own objects at Stripe."""

from collections.abc import Mapping
from typing import Any

from billing.usage import Period

# In the metadata of each of our lines; the amount only of usage at a price that bills no new line.
LINE, QUANTITY, PRICE, AMOUNT = "gw_line", "gw_quantity", "gw_price", "gw_amount"
# In the metadata of our invoices: the period, and the last flush that reached Stripe.
PERIOD, SEQ, VERSION, EPOCH = "gw_period", "gw_seq", "gw_ver", "gw_epoch"

# The prefix of every idempotency key of ours; an event quotes the key of the request that caused it.
IDEMPOTENCY_PREFIX = "gw1:"


def revised_invoice(invoice: Mapping[str, Any]) -> str | None:
    """Return the id of the invoice that *invoice*, as Stripe shows it, revises; None if it is no revision."""
    source = invoice.get("from_invoice")
    if not isinstance(source, Mapping) or source.get("action") != "revision":
        return None
    original = source.get("invoice")
    found = original.get("id") if isinstance(original, Mapping) else original
    return found if isinstance(found, str) else None


def period_of(invoice: Mapping[str, Any]) -> Period | None:
    """Return the period that *invoice*, as Stripe shows it, bills; None if it is not ours.

    A revision is a person's, whatever metadata it has: Stripe may copy ours from the original.
    """
    metadata = None if revised_invoice(invoice) else invoice.get("metadata")
    text = metadata.get(PERIOD) if isinstance(metadata, Mapping) else None
    try:
        return Period.parse(text) if isinstance(text, str) else None
    except ValueError:
        return None
