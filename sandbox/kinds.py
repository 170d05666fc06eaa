"""The kinds of object, in one table: what is alike among them needs no code of its own."""

from collections.abc import Mapping
from typing import Any, Final

import stripe

from sandbox.sdk import blank


class Kind:
    """Its type in the SDK, how its ids begin, its plain verbs, and what a new one has but nulls."""

    def __init__(self, sdk_type: Any, prefix: str, verbs: str = "", **new: Any) -> None:
        self.type, self.prefix, self.verbs = sdk_type, prefix, verbs
        self.name: str = sdk_type.OBJECT_NAME
        self.blank = {**blank(sdk_type), **new}


KINDS: Final[Mapping[str, Kind]] = {
    "customers": Kind(
        stripe.Customer,
        "cus_",
        "list retrieve search",
        balance=0,
        delinquent=False,
        invoice_settings=blank(stripe.Customer.InvoiceSettings),
        next_invoice_sequence=1,
        preferred_locales=[],
        tax_exempt="none",
    ),
    "balance_transactions": Kind(
        stripe.CustomerBalanceTransaction, "cbtxn_1", "list retrieve update", type="adjustment"
    ),
    "payment_methods": Kind(
        stripe.PaymentMethod, "pm_1", "list retrieve", type="card", allow_redisplay="unspecified"
    ),
    "sessions": Kind(stripe.billing_portal.Session, "bps_1", configuration="bpc_1sandbox"),
    "products": Kind(
        stripe.Product, "prod_", "create list retrieve update", active=True, type="service"
    ),
    "prices": Kind(
        stripe.Price,
        "price_1",
        "list retrieve",
        active=True,
        tax_behavior="unspecified",
    ),
    "invoices": Kind(
        stripe.Invoice,
        "in_1",
        "list retrieve",
        account_country="US",
        auto_advance=False,
        billing_reason="manual",
        customer_tax_exempt="none",
        customer_tax_ids=[],
        issuer={"type": "self"},
    ),
    "lines": Kind(stripe.InvoiceLineItem, "il_1", discountable=True),
    "invoiceitems": Kind(stripe.InvoiceItem, "ii_1", discountable=True),
    "invoice_payments": Kind(stripe.InvoicePayment, "inpay_1", "list retrieve", is_default=True),
    "credit_notes": Kind(stripe.CreditNote, "cn_1", "list retrieve update"),
    "events": Kind(stripe.Event, "evt_1", "list retrieve"),
    "webhook_endpoints": Kind(
        stripe.WebhookEndpoint, "we_1", "delete list retrieve", status="enabled"
    ),
}
