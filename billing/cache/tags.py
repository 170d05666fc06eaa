"""Names of what the read cache keeps, and of the generations under which it is valid.

The generation of a Stripe object is its id (``cus_…``, ``in_…``): a change of an invoice replaces the
invoice's generation and its customer's in one ``cache.forget(invoice, customer)``. Other generations
have a name here. An entry is filled and forgotten by the same name: a name spelt in two places is a
stale panel.
"""

from dataclasses import dataclass

CATALOGUE = "catalogue"
"""Generation of all prices and products."""

CUSTOMERS = "customers"
"""Generation of every list of customers: replaced when any customer is made, changed or deleted."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Something the cache keeps: its *key*, and the *generations* that have to stand for it to be valid."""

    key: str
    generations: tuple[str, ...]


def usage(customer: str) -> str:
    """Generation of what the ledger knows of a customer: usage, syncs, holds, adjustments."""
    return f"usage:{customer}"


def catalogue() -> Entry:
    """Every price with its product."""
    return Entry("catalogue", (CATALOGUE,))


def customer(customer: str) -> Entry:
    """One customer, as Stripe gives it."""
    return Entry(f"customer:{customer}", (customer,))


def customer_with_card(customer: str) -> Entry:
    """One customer with the default payment method expanded."""
    return Entry(f"customer+card:{customer}", (customer,))


def customers(first: int, after: str | None, email: str | None) -> Entry:
    """A page of all customers, or of those with one e-mail address."""
    return Entry(f"customers:{first}:{after or ''}:{email or ''}", (CUSTOMERS,))


def invoice(invoice: str) -> Entry:
    """One invoice with the lines that Stripe embeds."""
    return Entry(f"invoice:{invoice}", (invoice,))


def invoices(customer: str, first: int, after: str | None, status: str | None) -> Entry:
    """A page of a customer's invoices, newest first."""
    return Entry(f"invoices:{customer}:{first}:{after or ''}:{status or ''}", (customer,))


def lines(invoice: str, first: int, after: str | None) -> Entry:
    """A page of an invoice's lines."""
    return Entry(f"lines:{invoice}:{first}:{after or ''}", (invoice,))


def payment_methods(customer: str, first: int, after: str | None) -> Entry:
    """A page of a customer's payment methods."""
    return Entry(f"payment_methods:{customer}:{first}:{after or ''}", (customer,))
