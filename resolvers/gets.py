"""Every GET of Stripe's that answers a field: its path, what is kept of its answer, and as what it is read."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from billing.cache import Shape, kept, tags
from billing.cache.tags import Entry
from billing.pages import Page
from billing.records import CustomerRecord, InvoiceRecord, LineRecord, PaymentMethodRecord

Body = Mapping[str, Any]
Keep = Callable[[Body], Any]


@dataclass(frozen=True, slots=True)
class Get:
    """One GET and the *entry* that keeps its answer: *keep* trims Stripe's body, *shape* reads what is left.

    *others* are the entries that the same answer fills as well, known once it has been fetched.
    """

    entry: Entry
    path: str
    keep: Keep
    shape: Shape
    params: Mapping[str, Any] = field(default_factory=dict)
    others: list[tuple[Entry, Any]] = field(default_factory=list)


class CustomerWithCard(NamedTuple):
    """A customer, and what its next invoice is paid with."""

    customer: CustomerRecord
    card: PaymentMethodRecord | None


def customer(customer: str) -> Get:
    """A customer with its default payment method: one read answers both."""
    return Get(
        tags.customer_with_card(customer),
        f"/v1/customers/{customer}",
        kept.customer,
        _customer_with_card,
        {"expand": ["invoice_settings.default_payment_method"]},
    )


def customers(first: int, after: str | None, email: str | None) -> Get:
    """A page of all customers."""
    entry = tags.customers(first, after, email)
    params = _params(first, after, email=email)
    return _page(entry, "/v1/customers", params, kept.customer, CustomerRecord.from_stripe)


def invoice(invoice: str) -> Get:
    """An invoice with the lines that Stripe embeds."""
    path = f"/v1/invoices/{invoice}"
    return Get(tags.invoice(invoice), path, kept.invoice, InvoiceRecord.from_stripe)


def invoices(customer: str, first: int, after: str | None, status: str | None) -> Get:
    """A page of a customer's invoices without their lines; each whole invoice fills its own entry."""
    whole: list[tuple[Entry, Any]] = []

    def keep(body: Body) -> Any:
        whole[:] = [(tags.invoice(each["id"]), kept.invoice(each)) for each in body["data"]]
        return _kept_page(kept.invoice_head)(body)

    return Get(
        tags.invoices(customer, first, after, status),
        "/v1/invoices",
        keep,
        _shaped_page(InvoiceRecord.from_stripe),
        _params(first, after, customer=customer, status=status),
        whole,
    )


def lines(invoice: str, first: int, after: str | None) -> Get:
    """A page of an invoice's lines."""
    entry = tags.lines(invoice, first, after)
    path = f"/v1/invoices/{invoice}/lines"
    return _page(entry, path, _params(first, after), kept.line, LineRecord.from_stripe)


def payment_methods(customer: str, first: int, after: str | None) -> Get:
    """A page of a customer's payment methods."""
    entry = tags.payment_methods(customer, first, after)
    path = f"/v1/customers/{customer}/payment_methods"
    read = PaymentMethodRecord.from_stripe
    return _page(entry, path, _params(first, after), kept.payment_method, read)


def _customer_with_card(body: Body) -> CustomerWithCard:
    card = body["invoice_settings"]["default_payment_method"]
    record = CustomerRecord.from_stripe(body)
    expanded = isinstance(card, Mapping)
    return CustomerWithCard(record, PaymentMethodRecord.from_stripe(card) if expanded else None)


def _params(first: int, after: str | None, **filters: str | None) -> dict[str, Any]:
    found = {"limit": first, "starting_after": after, **filters}
    return {name: value for name, value in found.items() if value is not None}


def _page(
    entry: Entry, path: str, params: Mapping[str, Any], keep: Keep, shape: Callable[[Body], Any]
) -> Get:
    return Get(entry, path, _kept_page(keep), _shaped_page(shape), params)


def _kept_page(keep: Keep) -> Keep:
    return lambda body: {"data": [keep(each) for each in body["data"]], "more": body["has_more"]}


def _shaped_page(shape: Callable[[Body], Any]) -> Shape:
    return lambda body: Page(tuple(shape(each) for each in body["data"]), has_more=body["more"])
