"""The types that Stripe's SDK promises of a response, by the annotations of its objects."""

from collections.abc import Iterator
from decimal import Decimal
from types import NoneType
from typing import Any, ForwardRef, Literal, Union, get_args, get_origin

import stripe
from stripe._stripe_object import UntypedStripeObject

SCALARS: dict[Any, tuple[type, ...]] = {
    str: (str,),
    int: (int,),
    bool: (bool,),
    float: (int, float),
    Decimal: (str,),
    NoneType: (NoneType,),
}
OBJECTS: dict[str, Any] = {
    kind.OBJECT_NAME: kind
    for kind in (
        stripe.Account,
        stripe.billing_portal.Configuration,
        stripe.billing_portal.Session,
        stripe.Charge,
        stripe.Coupon,
        stripe.CreditNote,
        stripe.Customer,
        stripe.CustomerBalanceTransaction,
        stripe.Discount,
        stripe.Event,
        stripe.Invoice,
        stripe.InvoiceItem,
        stripe.InvoiceLineItem,
        stripe.InvoicePayment,
        stripe.PaymentIntent,
        stripe.PaymentMethod,
        stripe.Price,
        stripe.Product,
        stripe.Subscription,
        stripe.TaxRate,
        stripe.SetupIntent,
        stripe.tax.Settings,
        stripe.test_helpers.TestClock,
        stripe.WebhookEndpoint,
    )
}


ANY_OBJECT = ForwardRef("StripeObject")


def problems(value: Any, hint: Any = ANY_OBJECT, at: str = "$") -> Iterator[str]:
    """Tell where *value* is not what *hint* promises; nothing means that it is."""
    kind, options = get_origin(hint) or hint, get_args(hint)
    if kind is Union:
        tried = [list(problems(value, option, at)) for option in options]
        if all(tried):
            yield min(tried, key=len)[0]
    elif kind is Literal:
        if value not in options:
            yield f"{at}: {value!r} is not one of {options}"
    elif kind in SCALARS:
        if not isinstance(value, SCALARS[kind]) or (kind is int and isinstance(value, bool)):
            yield f"{at}: {value!r} is not {kind.__name__}"
    elif not isinstance(value, list if kind is list else dict):
        yield f"{at}: {value!r} is not a {'list' if kind is list else 'hash'}"
    elif kind is list:
        for place, item in enumerate(value):
            yield from problems(item, options[0], f"{at}[{place}]")
    else:
        yield from _hash(value, kind, at)


def _hash(value: dict[str, Any], kind: Any, at: str) -> Iterator[str]:
    if value.get("object") in ("list", "search_result"):
        yield from (f"{at}.{key}: missing" for key in {"data", "has_more", "url"} - value.keys())
        for place, item in enumerate(value["data"]):
            yield from problems(item, ANY_OBJECT, f"{at}.data[{place}]")
    elif isinstance(kind, ForwardRef):
        yield from _object(value, OBJECTS[value["object"]], at)
    elif kind not in (UntypedStripeObject, dict):
        yield from _object(value, kind, at)


def _object(value: dict[str, Any], kind: Any, at: str) -> Iterator[str]:
    hints = {name: hint for name, hint in kind.__annotations__.items() if name != "OBJECT_NAME"}
    if value.get("deleted"):
        hints = {name: hints[name] for name in ("id", "object", "deleted")}
    for name, hint in hints.items():
        if name in value:
            yield from problems(value[name], hint, f"{at}.{name}")
        elif NoneType not in get_args(hint):
            yield f"{at}.{name}: missing"
    yield from (f"{at}.{name}: not in the SDK" for name in value.keys() - hints.keys())
