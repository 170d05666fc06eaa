"""Every GET of Stripe's that answers a field: its path, what is kept of its answer, and as what it is read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from billing.cache import Decode, entries, kept
from billing.cache.entries import CacheEntry
from billing.pagination import Page, PageRequest
from billing.stripe.records import (
    CustomerRecord,
    InvoiceRecord,
    LineRecord,
    PaymentMethodRecord,
)

Body = Mapping[str, Any]
Trim = Callable[[Body], Any]
Parts = Sequence[tuple[CacheEntry, Any]]


def _alone(_body: Body) -> Parts:
    return ()


@dataclass(frozen=True, slots=True)
class StripeQuery:
    """One GET and the *entry* that keeps its answer: *trim* cuts Stripe's body down, *shape* reads what is left.

    *parts* are the entries that the same body fills as well.
    """

    entry: CacheEntry
    path: str
    trim: Trim
    shape: Decode
    params: Mapping[str, Any] = field(default_factory=dict)
    parts: Callable[[Body], Parts] = _alone

    def keep(self, body: Body) -> tuple[Any, Parts]:
        """What of Stripe's *body* is kept, here and in other entries."""
        return self.trim(body), self.parts(body)


class CustomerWithCard(NamedTuple):
    """A customer, and what its next invoice is paid with."""

    customer: CustomerRecord
    card: PaymentMethodRecord | None


CARD = "invoice_settings.default_payment_method"


def customer(customer: str) -> StripeQuery:
    """A customer."""
    path = f"/v1/customers/{customer}"
    return StripeQuery(entries.customer(customer), path, kept.customer, CustomerRecord.from_stripe)


def customer_with_card(customer: str) -> StripeQuery:
    """A customer with its default payment method: one read answers both."""
    entry, path = entries.customer_with_card(customer), f"/v1/customers/{customer}"
    return StripeQuery(entry, path, kept.customer, _customer_with_card, {"expand": [CARD]})


def customers(window: PageRequest, email: str | None) -> StripeQuery:
    """A page of all customers."""
    entry, params = entries.customers(window, email), _params(window, email=email)
    return _page(entry, "/v1/customers", params, kept.customer, CustomerRecord.from_stripe)


def customers_with_cards(window: PageRequest, email: str | None) -> StripeQuery:
    """The same page with each one's default payment method: one read instead of one for each."""
    entry = entries.customers_with_cards(window, email)
    params = {**_params(window, email=email), "expand": [f"data.{CARD}"]}
    return _page(entry, "/v1/customers", params, kept.customer, _customer_with_card)


def invoice(invoice: str) -> StripeQuery:
    """An invoice with the lines that Stripe embeds."""
    path = f"/v1/invoices/{invoice}"
    return StripeQuery(entries.invoice(invoice), path, kept.invoice, InvoiceRecord.from_stripe)


def invoices(customer: str, window: PageRequest, status: str | None) -> StripeQuery:
    """A page of a customer's invoices without their lines; each whole invoice fills its own entry."""
    heads = _heads(entries.invoices(customer, window, status), customer, window, status)
    return replace(heads, parts=_whole_invoices)


def invoice_heads(customer: str, window: PageRequest) -> StripeQuery:
    """The same page and nothing else: what adds up to years of bills is not worth its lines' memory."""
    return _heads(entries.invoice_heads(customer, window), customer, window)


def lines(invoice: str, window: PageRequest) -> StripeQuery:
    """A page of an invoice's lines."""
    entry, path = entries.lines(invoice, window), f"/v1/invoices/{invoice}/lines"
    return _page(entry, path, _params(window), kept.line, LineRecord.from_stripe)


def payment_methods(customer: str, window: PageRequest) -> StripeQuery:
    """A page of a customer's payment methods."""
    entry = entries.payment_methods(customer, window)
    path = f"/v1/customers/{customer}/payment_methods"
    read = PaymentMethodRecord.from_stripe
    return _page(entry, path, _params(window), kept.payment_method, read)


def _heads(
    entry: CacheEntry, customer: str, window: PageRequest, status: str | None = None
) -> StripeQuery:
    params = _params(window, customer=customer, status=status)
    return _page(entry, "/v1/invoices", params, kept.invoice_head, InvoiceRecord.from_stripe)


def _whole_invoices(page: Body) -> Parts:
    return [(entries.invoice(each["id"]), kept.invoice(each)) for each in page["data"]]


def _customer_with_card(body: Body) -> CustomerWithCard:
    card = body["invoice_settings"]["default_payment_method"]
    record = CustomerRecord.from_stripe(body)
    expanded = isinstance(card, Mapping)
    return CustomerWithCard(record, PaymentMethodRecord.from_stripe(card) if expanded else None)


def _params(window: PageRequest, **filters: str | None) -> dict[str, Any]:
    part = {
        "limit": window.size,
        "starting_after": window.after,
        "ending_before": window.before,
    }
    return {name: value for name, value in {**part, **filters}.items() if value is not None}


def _page(
    entry: CacheEntry,
    path: str,
    params: Mapping[str, Any],
    trim: Trim,
    shape: Callable[[Body], Any],
) -> StripeQuery:
    return StripeQuery(entry, path, _trimmed_page(trim), _shaped_page(shape), params)


def _trimmed_page(trim: Trim) -> Trim:
    return lambda body: {"data": [trim(each) for each in body["data"]], "more": body["has_more"]}


def _shaped_page(shape: Callable[[Body], Any]) -> Decode:
    return lambda body: Page(tuple(shape(each) for each in body["data"]), has_more=body["more"])
