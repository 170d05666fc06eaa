"""The part of Stripe's objects that the read cache keeps: what ``stripe_api.records`` reads, and nothing else.

A Stripe invoice is 6 KB of JSON, its kept part 1 KB. Kept parts have Stripe's own shape, so a record
made of one equals the record made of the whole.
"""

from collections.abc import Mapping
from typing import Any

Body = Mapping[str, Any]

_CUSTOMER = (
    "id",
    "name",
    "email",
    "currency",
    "delinquent",
    "balance",
    "deleted",
    "metadata",
)
_INVOICE = (
    "id",
    "number",
    "status",
    "currency",
    "subtotal",
    "total",
    "amount_due",
    "amount_paid",
    "created",
    "period_start",
    "period_end",
    "automatically_finalizes_at",
    "due_date",
    "hosted_invoice_url",
    "invoice_pdf",
    "metadata",
)
_LINE = (
    "id",
    "description",
    "amount",
    "currency",
    "quantity",
    "quantity_decimal",
    "period",
    "pricing",
    "metadata",
)


def customer(body: Body) -> dict[str, Any]:
    """Of a customer, whose default payment method may be expanded."""
    preferred = (body.get("invoice_settings") or {}).get("default_payment_method")
    if isinstance(preferred, Mapping):
        preferred = payment_method(preferred)
    return {**_only(_CUSTOMER, body), "invoice_settings": {"default_payment_method": preferred}}


def invoice(body: Body) -> dict[str, Any]:
    """Of an invoice, with the lines that Stripe embeds."""
    embedded = body["lines"]
    lines = {"data": [line(each) for each in embedded["data"]], "has_more": embedded["has_more"]}
    return {**invoice_head(body), "lines": lines}


def invoice_head(body: Body) -> dict[str, Any]:
    """Of an invoice, without its lines."""
    customer = body["customer"]
    taxes = body.get("total_taxes")
    return {
        **_only(_INVOICE, body),
        "customer": customer["id"] if isinstance(customer, Mapping) else customer,
        "total_taxes": taxes and [{"amount": each["amount"]} for each in taxes],
    }


def line(body: Body) -> dict[str, Any]:
    """Of an invoice's line."""
    return _only(_LINE, body)


def payment_method(body: Body) -> dict[str, Any]:
    """Of a payment method: of a card only what may be shown."""
    details = body.get(body["type"]) or {}
    shown = _only(("brand", "bank_name", "last4", "exp_month", "exp_year"), details)
    return {**_only(("id", "type", "customer"), body), body["type"]: shown}


def _only(names: tuple[str, ...], body: Body) -> dict[str, Any]:
    return {name: body[name] for name in names if name in body}
