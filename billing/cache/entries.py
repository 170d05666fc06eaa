"""Names of what the read cache keeps, and of the generations under which it is valid.

The generation of a Stripe object is its id (``cus_…``, ``in_…``): a change of an invoice replaces the
invoice's generation and its customer's in one ``cache.forget(invoice, customer)``; of one whose owner is
not known, ``ANYBODY`` in the customer's place. Other generations have a name here. An entry is filled
and forgotten by the same name: a name spelt in two places is a stale panel.
"""

from dataclasses import dataclass

from billing.pagination import Window

CATALOGUE = "catalogue"
"""Generation of all prices and products."""

CATALOGUE_FRESH = 900.0
"""Seconds; as many reads as there are hundreds of prices, whenever usage comes in after that."""

CUSTOMERS = "customers"
"""Generation of every list of customers: replaced when any customer, or a way to pay of one, is changed."""

ANYBODY = "anybody"
"""Generation of whatever is a customer's: replaced when something of theirs changed that names no owner."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Something the cache keeps: its *key*, and the *generations* that have to stand for it to be valid.

    *fresh* is for how many seconds it is, None for as long as the policy says.
    """

    key: str
    generations: tuple[str, ...]
    fresh: float | None = None


def usage(customer: str) -> str:
    """Generation of what the ledger knows of a customer: usage, syncs, holds, adjustments."""
    return f"usage:{customer}"


def catalogue() -> Entry:
    """Every price with its product."""
    return Entry("catalogue", (CATALOGUE,), CATALOGUE_FRESH)


def customer(customer: str) -> Entry:
    """One customer, as Stripe gives it."""
    return Entry(f"customer:{customer}", (customer, ANYBODY))


def customer_with_card(customer: str) -> Entry:
    """One customer with the default payment method expanded."""
    return Entry(f"customer+card:{customer}", (customer, ANYBODY))


def customers(window: Window, email: str | None) -> Entry:
    """A page of all customers, or of those with one e-mail address."""
    return Entry(f"customers:{_part(window)}:{email or ''}", (CUSTOMERS,))


def customers_with_cards(window: Window, email: str | None) -> Entry:
    """The same with their default payment methods expanded."""
    return Entry(f"customers+cards:{_part(window)}:{email or ''}", (CUSTOMERS,))


def invoice(invoice: str) -> Entry:
    """One invoice with the lines that Stripe embeds."""
    return Entry(f"invoice:{invoice}", (invoice, ANYBODY))


def invoices(customer: str, window: Window, status: str | None) -> Entry:
    """A page of a customer's invoices, newest first."""
    return Entry(f"invoices:{customer}:{_part(window)}:{status or ''}", (customer, ANYBODY))


def invoice_heads(customer: str, window: Window) -> Entry:
    """The same page, loaded without filling an entry for each invoice of it."""
    return Entry(f"invoice_heads:{customer}:{_part(window)}", (customer, ANYBODY))


def lines(invoice: str, window: Window) -> Entry:
    """A page of an invoice's lines."""
    return Entry(f"lines:{invoice}:{_part(window)}", (invoice, ANYBODY))


def payment_methods(customer: str, window: Window) -> Entry:
    """A page of a customer's payment methods."""
    return Entry(f"payment_methods:{customer}:{_part(window)}", (customer, ANYBODY))


def _part(window: Window) -> str:
    return f"{window.size}:{window.after or ''}:{window.before or ''}"
