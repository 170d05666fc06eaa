"""What an operation reads, each thing once: made anew for every operation and every subscription event.

Stripe's objects come through the cache, one entry an object or page; the ledger's from the ledger.
Loads of one loop tick go out together, whatever their type: the cache asks Redis once for all.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from billing.cache.local_cache import CachedValue, Source
from billing.pagination import Page, PageRequest
from billing.stripe.records import (
    CustomerRecord,
    InvoiceRecord,
    LineRecord,
    PaymentMethodRecord,
)
from resolvers.dataloaders import stripe_queries
from resolvers.dataloaders.base import Loader
from resolvers.dataloaders.ledger import LedgerLoaders

T = TypeVar("T")
EMPTY_PAGE: Page[Any] = Page((), has_more=False)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[T]):
    """A record of Stripe's, where it came from, and when its load began."""

    value: T
    source: Source
    fetched_at: datetime


class PageKey(NamedTuple):
    """A page of what belongs to *owner*."""

    owner: str
    window: PageRequest


class InvoicesKey(NamedTuple):
    """A page of a customer's invoices, newest first, of one *status* (Stripe's word) if given."""

    customer: str
    window: PageRequest
    status: str | None = None


class CustomersKey(NamedTuple):
    """A page of all customers, newest first, with one *email* if given."""

    window: PageRequest
    email: str | None = None


class Loaders(LedgerLoaders):
    """Loaders of one operation: ``await loaders.customer.load("cus_…")``.

    *with_cards*: default payment methods will be asked for, so let them come along with their customers.
    """

    with_cards = False

    @cached_property
    def customer(self) -> Loader[str, Loaded[CustomerRecord] | None]:
        """A customer by id; None when Stripe has none, or has deleted it."""
        return Loader.per_key(self._customer)

    @cached_property
    def default_payment_method(self) -> Loader[str, Loaded[PaymentMethodRecord] | None]:
        """What a customer's next invoice is paid with, by the customer's id."""
        return Loader.per_key(self._default_payment_method)

    @cached_property
    def customers(self) -> Loader[CustomersKey, Page[Loaded[CustomerRecord]]]:
        """A page of customers, for Support."""
        return Loader.per_key(self._customers)

    @cached_property
    def invoice(self) -> Loader[str, Loaded[InvoiceRecord] | None]:
        """An invoice by id, with the lines that Stripe embeds; None when Stripe has none."""
        return Loader.per_key(self._invoice)

    @cached_property
    def invoices(self) -> Loader[InvoicesKey, Page[Loaded[InvoiceRecord]]]:
        """A page of a customer's invoices, without their lines."""
        return Loader.per_key(self._invoices)

    @cached_property
    def invoice_heads(self) -> Loader[PageKey, Page[InvoiceRecord]]:
        """A page of a customer's invoices, to be added up: nobody is going to look at single ones."""
        return Loader.per_key(self._invoice_heads)

    @cached_property
    def lines(self) -> Loader[PageKey, Page[LineRecord]]:
        """A page of an invoice's lines."""
        return Loader.per_key(self._lines)

    @cached_property
    def payment_methods(self) -> Loader[PageKey, Page[Loaded[PaymentMethodRecord]]]:
        """A page of a customer's payment methods."""
        return Loader.per_key(self._payment_methods)

    @cached_property
    def payment_method(self) -> Loader[str, Loaded[PaymentMethodRecord] | None]:
        """A payment method by its id, read anew each time: the events that change it name its customer."""
        return Loader.per_key(self._payment_method)

    async def visible_invoice(
        self, invoice: str, may_see: Callable[[str], bool]
    ) -> Loaded[InvoiceRecord] | None:
        """The invoice with this id if its customer is one that the viewer *may_see*.

        None for somebody else's as for none at all: the two cannot be told apart by anything.
        """
        cached = await self._reader.get_if_visible(
            stripe_queries.invoice(invoice), lambda record: may_see(record.customer)
        )
        if cached is None or cached.value is None:
            return None
        loaded = _loaded_invoice(cached, cached.value)
        self.invoice.prime(invoice, loaded)
        return loaded

    async def _customer(self, customer: str) -> Loaded[CustomerRecord] | None:
        if self.with_cards:
            cached = await self._reader.get(stripe_queries.customer_with_card(customer))
            record, card = cached.value or (None, None)
            self.default_payment_method.prime(customer, card and _loaded(cached, card))
        else:
            cached = await self._reader.get(stripe_queries.customer(customer))
            record = cached.value
        return None if record is None or record.deleted else _loaded(cached, record)

    async def _default_payment_method(self, customer: str) -> Loaded[PaymentMethodRecord] | None:
        cached = await self._reader.get(stripe_queries.customer_with_card(customer))
        found: stripe_queries.CustomerWithCard | None = cached.value
        return _loaded(cached, found.card) if found and found.card else None

    async def _customers(self, wanted: CustomersKey) -> Page[Loaded[CustomerRecord]]:
        if not wanted.window.size:
            return EMPTY_PAGE
        if not self.with_cards:
            cached = await self._reader.get(stripe_queries.customers(*wanted))
            return _page_of(cached).map(lambda record: _loaded(cached, record))
        cached = await self._reader.get(stripe_queries.customers_with_cards(*wanted))
        for record, card in _page_of(cached).items:
            self.default_payment_method.prime(record.id, card and _loaded(cached, card))
        return _page_of(cached).map(lambda found: _loaded(cached, found.customer))

    async def _invoice(self, invoice: str) -> Loaded[InvoiceRecord] | None:
        cached = await self._reader.get(stripe_queries.invoice(invoice))
        return None if cached.value is None else _loaded_invoice(cached, cached.value)

    async def _invoices(self, wanted: InvoicesKey) -> Page[Loaded[InvoiceRecord]]:
        if not wanted.window.size:
            return EMPTY_PAGE
        cached, parts = await self._reader.get_with_parts(stripe_queries.invoices(*wanted))
        # Their lines have come along, whether the cache may keep them or not.
        for _, whole in parts:
            record = InvoiceRecord.from_stripe(whole)
            self.invoice.prime(record.id, _loaded_invoice(cached, record))
        return _page_of(cached).map(lambda record: _loaded_invoice(cached, record))

    async def _invoice_heads(self, wanted: PageKey) -> Page[InvoiceRecord]:
        return _page_of(await self._reader.get(stripe_queries.invoice_heads(*wanted)))

    async def _lines(self, wanted: PageKey) -> Page[LineRecord]:
        invoice, window = wanted
        loaded = await self.invoice.load(invoice) if window.size else None
        if loaded is None:
            return EMPTY_PAGE
        page = embedded_lines(loaded.value, window)
        if page is None:
            page = _page_of(await self._reader.get(stripe_queries.lines(invoice, window)))
        ids = [line.id for line in page.items]
        await self._services.line_index.add(invoice, loaded.value.customer, ids)
        return page

    async def _payment_methods(self, wanted: PageKey) -> Page[Loaded[PaymentMethodRecord]]:
        if not wanted.window.size:
            return EMPTY_PAGE
        cached = await self._reader.get(stripe_queries.payment_methods(*wanted))
        return _page_of(cached).map(lambda record: _loaded(cached, record))

    async def _payment_method(self, payment_method: str) -> Loaded[PaymentMethodRecord] | None:
        asked_at = datetime.now(UTC)
        body = await self._reader.get_uncached(f"/v1/payment_methods/{payment_method}")
        if body is None:
            return None
        return Loaded(PaymentMethodRecord.from_stripe(body), Source.STRIPE, asked_at)


def embedded_lines(invoice: InvoiceRecord, window: PageRequest) -> Page[LineRecord] | None:
    """The page of lines, if those that Stripe embeds in an invoice show all of it."""
    ids = [line.id for line in invoice.lines]
    if {window.after, window.before} - {None, *ids}:
        return None
    if window.before is not None:
        return window.apply(invoice.lines[: ids.index(window.before)])
    rest = invoice.lines[ids.index(window.after) + 1 if window.after else 0 :]
    if invoice.has_more_lines and len(rest) < window.size:
        return None
    page = window.apply(rest)
    return Page(page.items, has_more=page.has_more or invoice.has_more_lines)


def _page_of(cached: CachedValue) -> Page[Any]:
    return cached.value or EMPTY_PAGE


def _loaded(cached: CachedValue, record: T) -> Loaded[T]:
    return Loaded(record, cached.source, cached.fetched_at)


def _loaded_invoice(cached: CachedValue, record: InvoiceRecord) -> Loaded[InvoiceRecord]:
    """*record*; its links expire, so an invoice that could not be read just now is shown without."""
    if cached.source is Source.STALE:
        record = msgspec.structs.replace(record, hosted_invoice_url=None, invoice_pdf=None)
    return _loaded(cached, record)
