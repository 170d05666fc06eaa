"""The kinds of object, in one table: what is alike among them needs no code of its own."""

from collections.abc import Mapping
from typing import Any, Final

import stripe

from sandbox.sdk import blank

# What a new object has, whatever its kind, where the SDK's types allow null.
NEW: Final[Mapping[str, Any]] = {
    "account_country": "US",
    "active": True,
    "allow_redisplay": "unspecified",
    "auto_advance": False,
    "balance": 0,
    "billing_reason": "manual",
    "customer_tax_exempt": "none",
    "customer_tax_ids": [],
    "delinquent": False,
    "discountable": True,
    "invoice_settings": blank(stripe.Customer.InvoiceSettings),
    "is_default": True,
    "issuer": {"type": "self"},
    "next_invoice_sequence": 1,
    "preferred_locales": [],
    "tax_exempt": "none",
}


class Kind:
    """Its type in the SDK, how its ids begin, its plain verbs, and what is new in it alone."""

    def __init__(self, sdk_type: Any, prefix: str, verbs: str = "", **new: str) -> None:
        self.type, self.prefix, self.verbs = sdk_type, prefix, verbs.split()
        self.name: str = sdk_type.OBJECT_NAME
        bare = blank(sdk_type)
        self.blank = bare | {field: NEW[field] for field in NEW.keys() & bare.keys()} | new


KINDS: Final[Mapping[str, Kind]] = {
    "customers": Kind(stripe.Customer, "cus_", "list retrieve search"),
    "balance_transactions": Kind(
        stripe.CustomerBalanceTransaction, "cbtxn_1", "list retrieve update"
    ),
    "payment_methods": Kind(stripe.PaymentMethod, "pm_1", "list retrieve", type="card"),
    "sessions": Kind(stripe.billing_portal.Session, "bps_1", configuration="bpc_1sandbox"),
    "products": Kind(stripe.Product, "prod_", "create list retrieve update", type="service"),
    "prices": Kind(stripe.Price, "price_1", "list retrieve", tax_behavior="unspecified"),
    "invoices": Kind(stripe.Invoice, "in_1", "list retrieve"),
    "lines": Kind(stripe.InvoiceLineItem, "il_1"),
    "invoiceitems": Kind(stripe.InvoiceItem, "ii_1", "list retrieve"),
    "invoice_payments": Kind(stripe.InvoicePayment, "inpay_1", "list retrieve"),
    "credit_notes": Kind(stripe.CreditNote, "cn_1", "list retrieve update"),
    "events": Kind(stripe.Event, "evt_1", "list retrieve"),
    "webhook_endpoints": Kind(
        stripe.WebhookEndpoint, "we_1", "delete list retrieve", status="enabled"
    ),
}
