"""Stripe's operations, parameter types and object types, read from the installed stripe-python.

They are read when first needed; the SDK's own code is never called.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from importlib import import_module
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import stripe

Json = dict[str, Any]
API_VERSION: Final = stripe.api_version
# Fields that Stripe omits when they are empty; the SDK's types do not distinguish them from null.
_OMITTED: Final = """
OBJECT_NAME deleted amount_paid_off_stripe business_name charge currency_options frozen_fields
individual_name invoice_credit_balance invoicing_rules payment_record payments price_details
proration_details radar_options secret sources status_details subscriptions tax tax_ids threshold_reason tiers"""
OMITTED: Final = frozenset(_OMITTED.split())
_CALL: Final = re.compile(r'"(\w+Params)".*?_request\(\s*"(\w+)",\s*"(/v1/[^"]+)"', re.DOTALL)


@cache
def operations() -> dict[str, tuple[str, str]]:
    """Return endpoint (``METHOD /v1/template``) → module and name of its parameters' type."""
    found, root = {}, Path(stripe.__file__).parent
    for path in sorted(root.rglob("_*_service.py")):
        module = ".".join(("stripe", "params", *path.relative_to(root).parts[:-1]))
        for method in path.read_text().split("\n    def ")[1:]:
            if call := _CALL.search(method.partition("\n    async def ")[0]):
                params, verb, template = call.groups()
                found[f"{verb.upper()} {template}"] = (module, params)
    return found


def params_of(endpoint: str) -> type:
    """Return the type of an operation's parameters."""
    module, name = operations()[endpoint]
    found: type = getattr(import_module(module), name)
    return found


@cache
def fields(structure: type) -> tuple[dict[str, Any], frozenset[str]]:
    """Return the fields of a parameter structure with their types, and the required ones."""
    hints = get_type_hints(structure, localns={"Mapping": Mapping, "StripeContext": Any})
    own = {n: hint for n, hint in hints.items() if n not in stripe.RequestOptions.__annotations__}
    required = own.keys() & structure.__required_keys__  # type: ignore[attr-defined]
    return {n.rstrip("_"): hint for n, hint in own.items()}, frozenset(required)


def options(hint: Any) -> tuple[Any, ...]:
    """Return the types that a union allows, or the one type."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def choices(hint: Any) -> tuple[str, ...]:
    """Return the values that a type enumerates, if it does."""
    literals = [option for option in options(hint) if get_origin(option) is Literal]
    return tuple(value for literal in literals for value in get_args(literal))


@cache
def event_types() -> frozenset[str]:
    """Return all event types of Stripe."""
    hints, _ = fields(params_of("POST /v1/webhook_endpoints"))
    return frozenset(choices(get_args(hints["enabled_events"])[0]))


@cache
def blank(kind: type) -> Json:
    """Return an empty object: its fields are null where the type allows it, else empty."""
    hints, unsaid = kind.__annotations__, OMITTED
    if kind is stripe.PaymentMethod:  # it has only the field of the one type that it is
        unsaid = OMITTED.union(choices(hints["type"]))
    bare = {name: _empty_value(hint) for name, hint in hints.items() if name not in unsaid}
    return bare | ({"metadata": {}} if "metadata" in bare else {})


def _empty_value(hint: Any) -> Any:
    if NoneType in options(hint):
        return None
    first = options(hint)[0]
    kind = get_origin(first) or first
    if kind is Literal:
        return get_args(first)[0]
    if kind is Decimal:
        return "0"
    return blank(kind) if issubclass(kind, stripe.StripeObject) else kind()


def filled(kind: type, values: Json, blank_object: Json) -> Json:
    """Return *blank_object* with *values* filled in, on every level."""
    whole = {**blank_object, **{k: v for k, v in values.items() if k in kind.__annotations__}}
    for name, part in _substructures(kind).items():
        if type(values.get(name)) is dict:
            whole[name] = filled(part, values[name], blank(part))
    return whole


@cache
def _substructures(kind: type) -> dict[str, type]:
    hints = [(n, option) for n, hint in kind.__annotations__.items() for option in options(hint)]
    types = [(n, option) for n, option in hints if isinstance(option, type)]
    return {n: kind for n, kind in types if issubclass(kind, stripe.StripeObject)}


# Defaults of a new object of any kind, where the SDK's types allow null.
DEFAULTS: Final[Mapping[str, Any]] = {
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
    "is_default": True,
    "issuer": {"type": "self"},
    "next_invoice_sequence": 1,
    "preferred_locales": [],
    "tax_exempt": "none",
}


class Kind:
    """A kind of object: its SDK type, id prefix, common verbs, and the defaults that only it has."""

    def __init__(self, sdk_type: Any, prefix: str, verbs: str = "", **new: Any) -> None:
        self.type, self.prefix, self.verbs = sdk_type, prefix, verbs.split()
        self.name: str = sdk_type.OBJECT_NAME
        bare = blank(sdk_type)
        self.blank = (
            bare | {field: DEFAULTS[field] for field in DEFAULTS.keys() & bare.keys()} | new
        )


_BalanceTransaction: Final = stripe.CustomerBalanceTransaction
KINDS: Final[Mapping[str, Kind]] = {
    "customers": Kind(
        stripe.Customer,
        "cus_",
        "list retrieve search",
        invoice_settings=blank(stripe.Customer.InvoiceSettings),
    ),
    "balance_transactions": Kind(_BalanceTransaction, "cbtxn_1", "list retrieve update"),
    "payment_methods": Kind(stripe.PaymentMethod, "pm_1", "list retrieve", type="card"),
    "sessions": Kind(stripe.billing_portal.Session, "bps_1", configuration="bpc_1sandbox"),
    "products": Kind(stripe.Product, "prod_", "create list retrieve update", type="service"),
    "prices": Kind(stripe.Price, "price_1", "list retrieve", tax_behavior="unspecified"),
    "invoices": Kind(stripe.Invoice, "in_1", "list retrieve search"),
    "lines": Kind(stripe.InvoiceLineItem, "il_1", "list"),
    "invoiceitems": Kind(stripe.InvoiceItem, "ii_1", "list retrieve"),
    "invoice_payments": Kind(stripe.InvoicePayment, "inpay_1", "list retrieve"),
    "payment_intents": Kind(stripe.PaymentIntent, "pi_3", "list retrieve"),
    "charges": Kind(stripe.Charge, "ch_3", "list retrieve"),
    "setup_intents": Kind(stripe.SetupIntent, "seti_1", "list retrieve"),
    "credit_notes": Kind(stripe.CreditNote, "cn_1", "list retrieve update"),
    "events": Kind(stripe.Event, "evt_1", "list retrieve"),
    "coupons": Kind(stripe.Coupon, "", "delete list retrieve update"),
    "discounts": Kind(stripe.Discount, "di_1"),
    "tax_rates": Kind(stripe.TaxRate, "txr_1", "list retrieve update"),
    "test_clocks": Kind(stripe.test_helpers.TestClock, "clock_1", "delete list retrieve"),
    "subscriptions": Kind(stripe.Subscription, "sub_1", "list retrieve"),
    "account": Kind(stripe.Account, "acct_1", type="standard"),
    "settings": Kind(stripe.tax.Settings, "tax_settings"),
    "configurations": Kind(stripe.billing_portal.Configuration, "bpc_1", "list retrieve"),
    "webhook_endpoints": Kind(stripe.WebhookEndpoint, "we_1", "delete list retrieve"),
}
