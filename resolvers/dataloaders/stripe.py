"""Loaders of one operation: new ones for every operation and every subscription event.

Stripe's objects are read through the cache, which verifies all reads of one event loop iteration with one
command.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

import msgspec

from billing.cache.local_cache import Source
from billing.pagination import MAX_PAGE_SIZE, Page, PageRequest
from billing.stripe import resources
from billing.stripe.payment_failure import PaymentFailureRecord
from billing.stripe.reader import ReadResult
from billing.stripe.records import (
    CustomerRecord,
    CustomerWithCard,
    InvoiceRecord,
    LineRecord,
    PaymentMethodRecord,
)
from billing.stripe.resource import Resource
from resolvers.dataloaders.base import load_once
from resolvers.dataloaders.ledger import LedgerLoaders

T = TypeVar("T")
EMPTY_PAGE: Page[Any] = Page((), has_more=False)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[T]):
    """A record, its source, and the time at which its load began."""

    value: T
    source: Source
    fetched_at: datetime


class Loaders(LedgerLoaders):
    """Loads the data of one operation, each object once: ``await loaders.customer("cus_…")``.

    *with_cards*: default payment methods are selected, so customers are read with theirs.
    """

    with_cards = False

    @load_once
    async def get(self, resource: Resource[T]) -> ReadResult[T]:
        """Read any resource of Stripe."""
        return await self._reader.get(resource)

    async def customer(self, id_: str) -> Loaded[CustomerRecord] | None:
        """A customer; None if Stripe has none, or it was deleted."""
        result: ReadResult[Any]
        if self.with_cards:
            result = await self.get(resources.customer_with_card(id_))
            record = result.value.customer if result.value else None
        else:
            result = await self.get(resources.customer(id_))
            record = result.value
        return None if record is None or record.deleted else _loaded(result, record)

    async def remains(self, id_: str) -> Loaded[CustomerRecord]:
        """The remains of a customer that Stripe has deleted, or does not know: its id."""
        result = await self.get(resources.customer(id_))
        record = result.value or CustomerRecord.from_stripe({"id": id_, "deleted": True})
        return _loaded(result, record)

    async def deleted_customer(self, id_: str) -> Loaded[CustomerRecord] | None:
        """The remains of a customer that was deleted; None for any other."""
        result = await self.get(resources.customer(id_))
        record = result.value
        return _loaded(result, record) if record is not None and record.deleted else None

    async def default_payment_method(self, customer: str) -> Loaded[PaymentMethodRecord] | None:
        """The payment method of a customer's next invoice."""
        result = await self.get(resources.customer_with_card(customer))
        return _loaded(result, result.value.card) if result.value and result.value.card else None

    async def customers(
        self, page: PageRequest, email: str | None = None
    ) -> Page[Loaded[CustomerRecord]]:
        """A page of all customers, newest first, or of those with *email*."""
        if not page.size:
            return EMPTY_PAGE
        if not self.with_cards:
            return _loaded_page(await self.get(resources.customers(page, email)))
        result = await self.get(resources.customers_with_cards(page, email))
        found: Page[CustomerWithCard] = result.value or EMPTY_PAGE
        for customer in found.items:
            resource = resources.customer_with_card(customer.customer.id)
            self._prime("get", resource, result.part(customer))
        return found.map(lambda customer: _loaded(result, customer.customer))

    async def customer_search(self, query: str, size: int) -> Page[Loaded[CustomerRecord]]:
        """The customers that match *query*, in Stripe's search language."""
        return _loaded_page(await self.get(resources.customer_search(query, size)))

    async def invoice(self, id_: str) -> Loaded[InvoiceRecord] | None:
        """An invoice with the lines that Stripe embeds; None if Stripe has none."""
        result = await self.get(resources.invoice(id_))
        return _loaded_invoice(result, result.value) if result.value else None

    async def visible_invoice(
        self, id_: str, may_see: Callable[[str], bool]
    ) -> Loaded[InvoiceRecord] | None:
        """The invoice if the viewer *may_see* its customer; None otherwise, as for one that does not exist.

        The viewer cannot tell the two apart.
        """
        resource = resources.invoice(id_)
        result = await self._reader.get_if_visible(
            resource, lambda record: may_see(record.customer)
        )
        if result is None or result.value is None:
            return None
        self._prime("get", resource, result)
        return _loaded_invoice(result, result.value)

    async def invoices(
        self, customer: str, page: PageRequest, status: str | None = None
    ) -> Page[Loaded[InvoiceRecord]]:
        """A page of a customer's invoices, newest first, of one *status* if given, without their lines."""
        if not page.size:
            return EMPTY_PAGE
        result = await self.get(resources.invoices(customer, page, status))
        # Whole invoices of the response, for their lines; the cache may not have stored them.
        for _, invoice in result.included:
            resource = resources.invoice(invoice.id)
            self._prime("get", resource, result.part(invoice))
        found: Page[InvoiceRecord] = result.value or EMPTY_PAGE
        return found.map(lambda record: _loaded_invoice(result, record))

    async def unpaid_invoices(self, page: PageRequest) -> Page[Loaded[InvoiceRecord]]:
        """A page of all customers' open invoices, newest first."""
        if not page.size:
            return EMPTY_PAGE
        result = await self.get(resources.unpaid_invoices(page))
        for record in result.value.items if result.value else ():
            self._prime("get", resources.invoice(record.id), result.part(record))
        return _loaded_page(result)

    async def invoice_heads(self, customer: str, page: PageRequest) -> Page[InvoiceRecord]:
        """A page of a customer's invoices, to be added up; the invoices themselves are not cached."""
        return (await self.get(resources.invoice_heads(customer, page))).value or EMPTY_PAGE

    async def lines(self, invoice: str, page: PageRequest) -> Page[LineRecord]:
        """A page of an invoice's lines."""
        loaded = await self.invoice(invoice) if page.size else None
        if loaded is None:
            return EMPTY_PAGE
        found = embedded_lines(loaded.value, page)
        if found is None:
            found = (await self.get(resources.lines(invoice, page))).value or EMPTY_PAGE
        ids = [line.id for line in found.items]
        await self._services.line_index.add(invoice, loaded.value.customer, ids)
        return found

    async def payment_failure(self, invoice: str) -> PaymentFailureRecord | None:
        """The last failed attempt to charge an invoice."""
        return (await self.get(resources.payment_failure(invoice))).value

    async def payment_methods(
        self, customer: str, page: PageRequest
    ) -> Page[Loaded[PaymentMethodRecord]]:
        """A page of a customer's payment methods."""
        if not page.size:
            return EMPTY_PAGE
        return _loaded_page(await self.get(resources.payment_methods(customer, page)))

    async def own_payment_method(
        self, customer: str, id_: str
    ) -> Loaded[PaymentMethodRecord] | None:
        """One of a customer's payment methods, found in their list."""
        page = PageRequest(MAX_PAGE_SIZE)
        while True:
            found = await self.payment_methods(customer, page)
            for loaded in found.items:
                if loaded.value.id == id_:
                    return loaded
            if not (found.has_more and found.items):
                return None
            page = PageRequest(MAX_PAGE_SIZE, after=found.items[-1].value.id)

    async def payment_method(self, id_: str) -> Loaded[PaymentMethodRecord] | None:
        """A payment method; None if Stripe has none."""
        result = await self.get(resources.payment_method(id_))
        return _loaded(result, result.value) if result.value else None


def embedded_lines(invoice: InvoiceRecord, page: PageRequest) -> Page[LineRecord] | None:
    """The page of lines, if the lines that Stripe embeds in an invoice cover it."""
    ids = [line.id for line in invoice.lines]
    if {page.after, page.before} - {None, *ids}:
        return None
    if page.before is not None:
        return page.apply(invoice.lines[: ids.index(page.before)])
    rest = invoice.lines[ids.index(page.after) + 1 if page.after else 0 :]
    if invoice.has_more_lines and len(rest) < page.size:
        return None
    found = page.apply(rest)
    return Page(found.items, has_more=found.has_more or invoice.has_more_lines)


def _loaded_page(result: ReadResult[Page[T]]) -> Page[Loaded[T]]:
    page: Page[T] = result.value or EMPTY_PAGE
    return page.map(lambda record: _loaded(result, record))


def _loaded(result: ReadResult[Any], record: T) -> Loaded[T]:
    return Loaded(record, result.source, result.fetched_at)


def _loaded_invoice(result: ReadResult[Any], record: InvoiceRecord) -> Loaded[InvoiceRecord]:
    """*record*; a stale one without its URLs, which expire."""
    if result.source is Source.STALE:
        record = msgspec.structs.replace(record, hosted_invoice_url=None, invoice_pdf=None)
    return _loaded(result, record)
