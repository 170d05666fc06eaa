"""What an operation reads, each thing once: made anew for every operation and every subscription event.

Stripe's objects come through the cache, one entry an object or page; the ledger's from the ledger.
Loads of one loop tick go out together, whatever their type: the cache asks Redis once for all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar

from billing.budget import Lane
from billing.cache.memory import Cached, Source
from billing.ledger.reading import Dimension
from billing.pages import Page
from billing.records import CustomerRecord, InvoiceRecord, LineRecord, PaymentMethodRecord
from billing.services import Services
from billing.snapshot import Hold, Snapshot
from billing.syncs import Sync
from billing.usage import CustomerId, LineKey, Period, Price
from resolvers import gets
from resolvers.loading import Loader
from resolvers.reading import Cost, Footprint, Reading

T = TypeVar("T")
Quantities = Mapping[LineKey, Decimal]
NOTHING: Page[Any] = Page((), has_more=False)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[T]):
    """A record of Stripe's, where it came from, and when its load began."""

    value: T
    source: Source
    fetched_at: datetime


class PageOf(NamedTuple):
    """A page of what belongs to *owner*: the *first* (0 to 100) entries after the id *after*."""

    owner: str
    first: int
    after: str | None = None


class InvoicesOf(NamedTuple):
    """A page of a customer's invoices, newest first, of one *status* (Stripe's word) if given."""

    customer: str
    first: int
    after: str | None = None
    status: str | None = None


class Customers(NamedTuple):
    """A page of all customers, newest first, with one *email* if given."""

    first: int
    after: str | None = None
    email: str | None = None


class Loaders:
    """Loaders of one operation: ``await loaders.customer.load("cus_…")``. Page keys may be plain tuples."""

    def __init__(self, services: Services, lane: Lane = Lane.CUSTOMER) -> None:
        self._services = services
        self._reading = Reading(services, lane)

    @property
    def cost(self) -> Cost:
        """What has been loaded so far, and what that took."""
        return self._reading.cost

    @property
    def footprint(self) -> Footprint:
        """What everything loaded so far depends on."""
        return self._reading.footprint

    @cached_property
    def customer(self) -> Loader[str, Loaded[CustomerRecord] | None]:
        """A customer by id; None when Stripe has none, or has deleted it."""
        return Loader.each(self._customer)

    @cached_property
    def default_payment_method(self) -> Loader[str, PaymentMethodRecord | None]:
        """What a customer's next invoice is paid with, by the customer's id."""
        return Loader.each(self._default_payment_method)

    @cached_property
    def customers(self) -> Loader[tuple[int, str | None, str | None], Page[Loaded[CustomerRecord]]]:
        """A page of customers, for Support; keys are ``Customers``."""
        return Loader.each(self._customers)

    @cached_property
    def invoice(self) -> Loader[str, Loaded[InvoiceRecord] | None]:
        """An invoice by id, with the lines that Stripe embeds; None when Stripe has none."""
        return Loader.each(self._invoice)

    @cached_property
    def invoices(
        self,
    ) -> Loader[tuple[str, int, str | None, str | None], Page[Loaded[InvoiceRecord]]]:
        """A page of a customer's invoices, without their lines; keys are ``InvoicesOf``."""
        return Loader.each(self._invoices)

    @cached_property
    def lines(self) -> Loader[tuple[str, int, str | None], Page[LineRecord]]:
        """A page of an invoice's lines; keys are ``PageOf`` the invoice."""
        return Loader.each(self._lines)

    @cached_property
    def payment_methods(self) -> Loader[tuple[str, int, str | None], Page[PaymentMethodRecord]]:
        """A page of a customer's payment methods; keys are ``PageOf`` the customer."""
        return Loader.each(self._payment_methods)

    @cached_property
    def payment_method(self) -> Loader[str, PaymentMethodRecord | None]:
        """A payment method by its id, read anew each time: the events that change it name its customer."""
        return Loader.each(self._payment_method)

    @cached_property
    def snapshot(self) -> Loader[str, Snapshot]:
        """What the ledger knows of a customer's open period."""
        return Loader.each(self._snapshot)

    @cached_property
    def period(self) -> Loader[tuple[str, Period], Snapshot]:
        """What the ledger knows of one period of a customer."""
        return Loader.each(self._period)

    @cached_property
    def breakdown(self) -> Loader[tuple[str, Period, Dimension], Mapping[str, Quantities]]:
        """What a customer used in a period, by value of a dimension, then by line."""
        return Loader.each(self._breakdown)

    @cached_property
    def due_ms(self) -> Loader[tuple[str, Period], int | None]:
        """When a worker looks at a customer's period at the latest; None when nothing is left to say."""
        return Loader.each(self._due_ms)

    @cached_property
    def hold(self) -> Loader[str, Hold | None]:
        """Why a customer's billing is stopped; None when it is not."""
        return Loader.each(self._hold)

    @cached_property
    def sync(self) -> Loader[str, Sync | None]:
        """A sync by its id."""
        return Loader(self._syncs)

    @cached_property
    def last_sync(self) -> Loader[str, Sync | None]:
        """A customer's latest sync."""
        return Loader.each(self._last_sync)

    async def prices(self, snapshot: Snapshot) -> Mapping[str, Price]:
        """The prices that a snapshot pins, by id: they never change."""
        return await self._services.catalogue.by_id(snapshot.prices.values())

    async def _customer(self, customer: str) -> Loaded[CustomerRecord] | None:
        cached = await self._customer_with_card.load(customer)
        if cached.value is None or cached.value.customer.deleted:
            return None
        return _loaded(cached, cached.value.customer)

    async def _default_payment_method(self, customer: str) -> PaymentMethodRecord | None:
        found: gets.CustomerWithCard | None = (await self._customer_with_card.load(customer)).value
        return None if found is None else found.card

    @cached_property
    def _customer_with_card(self) -> Loader[str, Cached]:
        return Loader.each(lambda customer: self._reading.get(gets.customer(customer)))

    async def _customers(
        self, key: tuple[int, str | None, str | None]
    ) -> Page[Loaded[CustomerRecord]]:
        if not key[0]:
            return NOTHING
        cached = await self._reading.get(gets.customers(*key))
        return _page(cached).map(lambda record: _loaded(cached, record))

    async def _invoice(self, invoice: str) -> Loaded[InvoiceRecord] | None:
        cached = await self._reading.get(gets.invoice(invoice))
        return None if cached.value is None else _loaded_invoice(cached, cached.value)

    async def _invoices(
        self, key: tuple[str, int, str | None, str | None]
    ) -> Page[Loaded[InvoiceRecord]]:
        if not key[1]:
            return NOTHING
        get = gets.invoices(*key)
        cached = await self._reading.get(get)
        for (
            _,
            whole,
        ) in get.others:  # their lines have come along, whether the cache may keep them or not
            record = InvoiceRecord.from_stripe(whole)
            self.invoice.prime(record.id, _loaded_invoice(cached, record))
        return _page(cached).map(lambda record: _loaded_invoice(cached, record))

    async def _lines(self, key: tuple[str, int, str | None]) -> Page[LineRecord]:
        page = await self._page_of_lines(*key)
        await self._services.line_places.remember(key[0], [line.id for line in page.items])
        return page

    async def _page_of_lines(self, invoice: str, first: int, after: str | None) -> Page[LineRecord]:
        if after is None:
            loaded = await self.invoice.load(invoice)
            if loaded is None:
                return NOTHING
            embedded, more = loaded.value.lines, loaded.value.has_more_lines
            if len(embedded) >= first or not more:
                return Page(embedded[:first], has_more=more or len(embedded) > first)
        return (
            _page(await self._reading.get(gets.lines(invoice, first, after))) if first else NOTHING
        )

    async def _payment_methods(self, key: tuple[str, int, str | None]) -> Page[PaymentMethodRecord]:
        return _page(await self._reading.get(gets.payment_methods(*key))) if key[1] else NOTHING

    async def _payment_method(self, payment_method: str) -> PaymentMethodRecord | None:
        body = await self._reading.get_anew(f"/v1/payment_methods/{payment_method}")
        return None if body is None else PaymentMethodRecord.from_stripe(body)

    async def _snapshot(self, customer: str) -> Snapshot:
        await self._reading.of_ledger(customer)
        ledger, known_as = self._services.ledger, CustomerId(customer)
        return await ledger.peek(known_as, await ledger.open_period(known_as))

    async def _period(self, key: tuple[str, Period]) -> Snapshot:
        customer, period = key
        await self._reading.of_ledger(customer)
        return await self._services.ledger.peek(CustomerId(customer), period)

    async def _breakdown(self, key: tuple[str, Period, Dimension]) -> Mapping[str, Quantities]:
        customer, period, dimension = key
        await self._reading.of_ledger(customer)
        return await self._services.ledger.breakdown(CustomerId(customer), period, dimension)

    async def _due_ms(self, key: tuple[str, Period]) -> int | None:
        customer, period = key
        await self._reading.of_ledger(customer)
        return await self._services.ledger.due_ms(CustomerId(customer), period)

    async def _hold(self, customer: str) -> Hold | None:
        await self._reading.of_ledger(customer)
        return await self._services.ledger.held(CustomerId(customer))

    async def _syncs(self, ids: Sequence[str]) -> Sequence[Sync | None]:
        self.footprint.sound = False  # somebody waits for it to change
        return await self._services.syncs.many(ids)

    async def _last_sync(self, customer: str) -> Sync | None:
        await self._reading.of_ledger(customer)
        return await self._services.syncs.of(CustomerId(customer))


def _page(cached: Cached) -> Page[Any]:
    return cached.value or NOTHING


def _loaded(cached: Cached, record: T) -> Loaded[T]:
    return Loaded(record, cached.source, cached.fetched_at)


def _loaded_invoice(cached: Cached, record: InvoiceRecord) -> Loaded[InvoiceRecord]:
    """*record*; its links expire, so an invoice that could not be read just now is shown without."""
    if cached.source is Source.STALE:
        record = replace(record, hosted_invoice_url=None, invoice_pdf=None)
    return _loaded(cached, record)
