"""Keys of the read cache's entries, and names of the generations under which they are valid.

The generation of a Stripe object is named by its id (``cus_…``, ``in_…``). A change of an invoice
replaces the invoice's generation and its customer's in one ``cache.invalidate(invoice, customer)``, or
``ANY_CUSTOMER`` if the customer is unknown. Other generations are named here. Filling and invalidating
use the same name: a name spelt in two places is a stale panel.
"""

from dataclasses import dataclass

from billing.pagination import PageRequest

PRICE_CATALOG = "catalogue"
"""Generation of all prices and products."""

PRICE_CATALOG_FRESH_TTL = 900.0
"""Seconds; reading the catalog takes one call for each hundred prices."""

CUSTOMERS = "customers"
"""Generation of every list of customers: replaced when a customer or a payment method changes."""

ANY_CUSTOMER = "anybody"
"""Generation of all customers' objects: replaced by an event that does not name the customer."""


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A cache entry: its *key*, and the *generations* under which it is valid.

    *fresh_ttl* is in seconds; None: the policy's.
    """

    key: str
    generations: tuple[str, ...]
    fresh_ttl: float | None = None


def usage(customer: str) -> str:
    """Generation of a customer's ledger data: usage, syncs, holds, adjustments."""
    return f"usage:{customer}"


def price_catalog() -> CacheEntry:
    """Every price with its product."""
    return CacheEntry("catalogue", (PRICE_CATALOG,), PRICE_CATALOG_FRESH_TTL)


def customer(customer: str) -> CacheEntry:
    """One customer."""
    return CacheEntry(f"customer:{customer}", (customer, ANY_CUSTOMER))


def customer_with_card(customer: str) -> CacheEntry:
    """One customer with the default payment method expanded."""
    return CacheEntry(f"customer+card:{customer}", (customer, ANY_CUSTOMER))


def customers(page: PageRequest, email: str | None) -> CacheEntry:
    """A page of all customers, or of those with *email*."""
    return CacheEntry(f"customers:{_page_key(page)}:{email or ''}", (CUSTOMERS,))


def customers_with_cards(page: PageRequest, email: str | None) -> CacheEntry:
    """The same with their default payment methods expanded."""
    return CacheEntry(f"customers+cards:{_page_key(page)}:{email or ''}", (CUSTOMERS,))


def invoice(invoice: str) -> CacheEntry:
    """One invoice with the lines that Stripe embeds."""
    return CacheEntry(f"invoice:{invoice}", (invoice, ANY_CUSTOMER))


def invoices(customer: str, page: PageRequest, status: str | None) -> CacheEntry:
    """A page of a customer's invoices, newest first."""
    return CacheEntry(
        f"invoices:{customer}:{_page_key(page)}:{status or ''}", (customer, ANY_CUSTOMER)
    )


def invoice_heads(customer: str, page: PageRequest) -> CacheEntry:
    """The same page, loaded without filling an entry for each invoice of it."""
    return CacheEntry(f"invoice_heads:{customer}:{_page_key(page)}", (customer, ANY_CUSTOMER))


def lines(invoice: str, page: PageRequest) -> CacheEntry:
    """A page of an invoice's lines."""
    return CacheEntry(f"lines:{invoice}:{_page_key(page)}", (invoice, ANY_CUSTOMER))


def payment_methods(customer: str, page: PageRequest) -> CacheEntry:
    """A page of a customer's payment methods."""
    return CacheEntry(f"payment_methods:{customer}:{_page_key(page)}", (customer, ANY_CUSTOMER))


def _page_key(page: PageRequest) -> str:
    return f"{page.size}:{page.after or ''}:{page.before or ''}"
