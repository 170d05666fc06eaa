"""Stripe's objects as resources: path, parameters, cache entry and record of each GET.

These are the GETs that answer queries and accept usage. Workers read unconverted bodies with ``StripeApi.read``.

The generation of an object is its id. An entry is also valid under its customer's generation, or under
``ANY_CUSTOMER``, which an event replaces if it does not name the customer. An object that is never cached
has an entry without generations.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from billing.cache.entries import (
    ANY_CUSTOMER,
    CUSTOMERS,
    PRICE_CATALOG,
    PRICE_CATALOG_FRESH_TTL,
    PRICE_LIST,
    CacheEntry,
)
from billing.invoicing.remote_invoice import RemoteInvoice
from billing.pagination import MAX_PAGE_SIZE, Page, PageRequest
from billing.stripe.payment_failure import PaymentFailureRecord
from billing.stripe.price_record import PriceRecord
from billing.stripe.records import (
    CustomerRecord,
    CustomerWithCard,
    InvoiceRecord,
    LineRecord,
    PaymentMethodRecord,
)
from billing.stripe.resource import EntryValue, Resource, ValueType, page_from_stripe
from billing.stripe.values import StripeObject, id_of
from billing.usage import CustomerId

DEFAULT_CARD = "invoice_settings.default_payment_method"

OWNED_OBJECTS: Mapping[str, str] = {
    "ch": "charges",
    "cn": "credit_notes",
    "ii": "invoiceitems",
    "pi": "payment_intents",
    "py": "charges",
    "seti": "setup_intents",
    "sub": "subscriptions",
}
"""Path segment by id prefix, of the objects that are read for their customer's id alone."""


def _owner_from_stripe(body: StripeObject) -> CustomerId | None:
    customer = id_of(body.get("customer"))
    return CustomerId(customer) if customer else None


CUSTOMER = ValueType(CustomerRecord, CustomerRecord.from_stripe)
CUSTOMER_WITH_CARD = ValueType(CustomerWithCard, CustomerWithCard.from_stripe)
INVOICE = ValueType(InvoiceRecord, InvoiceRecord.from_stripe)
PAYMENT_METHOD = ValueType(PaymentMethodRecord, PaymentMethodRecord.from_stripe)
OWNER = ValueType(CustomerId | None, _owner_from_stripe)
OWNER_PAGE = ValueType(Page[CustomerId | None], partial(page_from_stripe, _owner_from_stripe))
REMOTE_INVOICE = ValueType(RemoteInvoice, RemoteInvoice.from_stripe)
CUSTOMER_PAGE = ValueType(
    Page[CustomerRecord], partial(page_from_stripe, CustomerRecord.from_stripe)
)
CUSTOMER_WITH_CARD_PAGE = ValueType(
    Page[CustomerWithCard], partial(page_from_stripe, CustomerWithCard.from_stripe)
)
INVOICE_PAGE = ValueType(Page[InvoiceRecord], partial(page_from_stripe, InvoiceRecord.from_stripe))
LINE_PAGE = ValueType(Page[LineRecord], partial(page_from_stripe, LineRecord.from_stripe))
PAYMENT_METHOD_PAGE = ValueType(
    Page[PaymentMethodRecord], partial(page_from_stripe, PaymentMethodRecord.from_stripe)
)
PAYMENT_FAILURE = ValueType(PaymentFailureRecord | None, PaymentFailureRecord.from_stripe)
PRICE = ValueType(PriceRecord, PriceRecord.from_stripe)
PRICE_PAGE = ValueType(Page[PriceRecord], partial(page_from_stripe, PriceRecord.from_stripe))


def customer(id_: str) -> Resource[CustomerRecord]:
    """A customer."""
    entry = CacheEntry(f"customer:{id_}", (id_, ANY_CUSTOMER))
    return Resource(entry, f"/v1/customers/{id_}", CUSTOMER)


def customer_with_card(id_: str) -> Resource[CustomerWithCard]:
    """A customer and its default payment method, in one read."""
    entry = CacheEntry(f"customer+card:{id_}", (id_, ANY_CUSTOMER))
    return Resource(entry, f"/v1/customers/{id_}", CUSTOMER_WITH_CARD, {"expand": [DEFAULT_CARD]})


def customers(page: PageRequest, email: str | None) -> Resource[Page[CustomerRecord]]:
    """A page of all customers, or of those with *email*."""
    entry = CacheEntry(f"customers:{_page_key(page)}:{_digest(email)}", (CUSTOMERS,))
    return Resource(entry, "/v1/customers", CUSTOMER_PAGE, _params(page, email=email))


def customers_with_cards(page: PageRequest, email: str | None) -> Resource[Page[CustomerWithCard]]:
    """The same page with each customer's default payment method."""
    entry = CacheEntry(f"customers+cards:{_page_key(page)}:{_digest(email)}", (CUSTOMERS,))
    params = {**_params(page, email=email), "expand": [f"data.{DEFAULT_CARD}"]}
    return Resource(entry, "/v1/customers", CUSTOMER_WITH_CARD_PAGE, params)


def customer_search(query: str, size: int) -> Resource[Page[CustomerRecord]]:
    """The first customers that match *query* in Stripe's search language; never cached."""
    entry = CacheEntry(f"customer_search:{size}:{_digest(query)}", ())
    params = {"query": query, "limit": size}
    return Resource(entry, "/v1/customers/search", CUSTOMER_PAGE, params)


def owners_of_number(number: str) -> Resource[Page[CustomerId | None]]:
    """The customers of the invoices with a *number* (letters, digits and hyphens), by search; never cached."""
    entry = CacheEntry(f"owners_of_number:{number}", ())
    params = {"query": f'number:"{number}"', "limit": MAX_PAGE_SIZE}
    return Resource(entry, "/v1/invoices/search", OWNER_PAGE, params)


def invoice(id_: str) -> Resource[InvoiceRecord]:
    """An invoice with the lines that Stripe embeds."""
    entry = CacheEntry(f"invoice:{id_}", (id_, ANY_CUSTOMER))
    return Resource(entry, f"/v1/invoices/{id_}", INVOICE)


def remote_invoice(id_: str) -> Resource[RemoteInvoice]:
    """An invoice with all of its lines, as a flush compares it with the ledger; never cached."""
    entry = CacheEntry(f"remote_invoice:{id_}", ())
    return Resource(entry, f"/v1/invoices/{id_}", REMOTE_INVOICE, all_lines=True)


def invoices(customer: str, page: PageRequest, status: str | None) -> Resource[Page[InvoiceRecord]]:
    """A page of a customer's invoices, newest first, without lines; each also fills its own entry."""
    entry = CacheEntry(
        f"invoices:{customer}:{_page_key(page)}:{status or ''}", (customer, ANY_CUSTOMER)
    )
    params = _params(page, customer=customer, status=status)
    return Resource(entry, "/v1/invoices", INVOICE_PAGE, params, split=_split_invoices)


def invoice_heads(customer: str, page: PageRequest) -> Resource[Page[InvoiceRecord]]:
    """The same page alone: years of invoices with their lines would take too much memory."""
    entry = CacheEntry(f"invoice_heads:{customer}:{_page_key(page)}", (customer, ANY_CUSTOMER))
    params = _params(page, customer=customer)
    return Resource(
        entry, "/v1/invoices", INVOICE_PAGE, params, split=lambda page: (page.map(_head), ())
    )


def unpaid_invoices(page: PageRequest) -> Resource[Page[InvoiceRecord]]:
    """A page of all customers' open invoices; never cached, because any event about an invoice may change it."""
    params = _params(page, status="open")
    entry = CacheEntry(f"unpaid_invoices:{_page_key(page)}", ())
    return Resource(entry, "/v1/invoices", INVOICE_PAGE, params)


def lines(invoice: str, page: PageRequest) -> Resource[Page[LineRecord]]:
    """A page of an invoice's lines."""
    entry = CacheEntry(f"lines:{invoice}:{_page_key(page)}", (invoice, ANY_CUSTOMER))
    return Resource(entry, f"/v1/invoices/{invoice}/lines", LINE_PAGE, _params(page))


def payment_method(id_: str) -> Resource[PaymentMethodRecord]:
    """A payment method; never cached, because the events that change it name only its customer."""
    return Resource(
        CacheEntry(f"payment_method:{id_}", ()), f"/v1/payment_methods/{id_}", PAYMENT_METHOD
    )


def payment_methods(customer: str, page: PageRequest) -> Resource[Page[PaymentMethodRecord]]:
    """A page of a customer's payment methods."""
    entry = CacheEntry(f"payment_methods:{customer}:{_page_key(page)}", (customer, ANY_CUSTOMER))
    path = f"/v1/customers/{customer}/payment_methods"
    return Resource(entry, path, PAYMENT_METHOD_PAGE, _params(page))


def payment_failure(invoice: str) -> Resource[PaymentFailureRecord | None]:
    """The last failed attempt to charge an invoice."""
    entry = CacheEntry(f"payment_failure:{invoice}", (invoice, ANY_CUSTOMER))
    params = {"invoice": invoice, "expand": ["data.payment.payment_intent"]}
    return Resource(entry, "/v1/invoice_payments", PAYMENT_FAILURE, params)


def price(id_: str) -> Resource[PriceRecord]:
    """A price with its product, also an archived one, which the list does not have."""
    entry = CacheEntry(f"price:{id_}", (PRICE_CATALOG,), PRICE_CATALOG_FRESH_TTL)
    return Resource(entry, f"/v1/prices/{id_}", PRICE, {"expand": ["product"]})


def prices() -> Resource[Page[PriceRecord]]:
    """Every active price with its product."""
    entry = CacheEntry("prices", (PRICE_CATALOG, PRICE_LIST), PRICE_CATALOG_FRESH_TTL)
    params = {"active": True, "expand": ["data.product"]}
    return Resource(entry, "/v1/prices", PRICE_PAGE, params, all_pages=True)


def owner(prefix: str, id_: str) -> Resource[CustomerId | None]:
    """The customer of one of ``OWNED_OBJECTS``; never cached."""
    return Resource(CacheEntry(f"owner:{id_}", ()), f"/v1/{OWNED_OBJECTS[prefix]}/{id_}", OWNER)


def _head(invoice: InvoiceRecord) -> InvoiceRecord:
    return msgspec.structs.replace(invoice, lines=(), has_more_lines=True)


def _split_invoices(page: Page[InvoiceRecord]) -> tuple[Page[InvoiceRecord], Sequence[EntryValue]]:
    return page.map(_head), [(invoice(record.id).entry, record) for record in page.items]


def _page_key(page: PageRequest) -> str:
    return f"{page.size}:{page.after or ''}:{page.before or ''}"


def _digest(text: str | None) -> str:
    """A digest that takes the place of an e-mail address in keys, which servers and logs show."""
    return hashlib.sha256(text.encode()).hexdigest()[:32] if text else ""


def _params(page: PageRequest, **filters: str | None) -> dict[str, Any]:
    params = {
        "limit": page.size,
        "starting_after": page.after,
        "ending_before": page.before,
        **filters,
    }
    return {name: value for name, value in params.items() if value is not None}
