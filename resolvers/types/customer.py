"""The customer type: identity, invoices, usage, payment methods, and Support's view of it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated

import strawberry

from billing import usage_validation
from billing.errors import ErrorCode, Refused
from billing.pagination import PageRequest
from billing.stripe.records import CustomerRecord
from billing.usage import CustomerId
from resolvers.context import Context, Info, Role
from resolvers.dataloaders.cached_reads import unknown_cursor
from resolvers.dataloaders.selection import load_page
from resolvers.dataloaders.stripe import CustomersKey, InvoicesKey, Loaded, PageKey
from resolvers.types.adjustment import Adjustment
from resolvers.types.audit import AuditEntry
from resolvers.types.billing_period import BillingPeriod
from resolvers.types.drift import DriftReport
from resolvers.types.hold import BillingHold
from resolvers.types.invoice import Invoice, InvoiceStatus
from resolvers.types.payment_method import PaymentMethod
from resolvers.types.spend import MAX_MONTHS, MonthlySpend, spend_by_month
from resolvers.types.stripe_links import dashboard_url
from resolvers.types.sync import SyncState
from schema.connections import (
    After,
    Before,
    Connection,
    First,
    Last,
    bad_input,
    page_request,
)
from schema.decorators import graphql_type
from schema.types.freshness import Freshness
from schema.types.money import Money
from schema.types.node import Node

CUSTOMERS_PAGE_SIZE = 20
PAYMENT_METHODS_PAGE_SIZE = 10
INVOICES_PAGE_SIZE = 20
ADJUSTMENTS_PAGE_SIZE = 20
AUDIT_LOG_PAGE_SIZE = 50
DEFAULT_MONTHS = 12
DEFAULT_CURRENCY = "usd"
"""Currency of a customer without an invoice; Stripe sets one with the first invoice."""


@graphql_type
class Customer(Node):
    """A Stripe customer: one paying Fly.io organization and the organizations linked to it."""

    id: strawberry.ID = strawberry.field(description="Stripe customer id, `cus_…`.")
    record: strawberry.Private[CustomerRecord]
    organization: str | None = strawberry.field(
        description="Slug of the Fly.io organization, from the metadata of the Stripe customer; null when it is not set.",
    )
    name: str | None = strawberry.field(
        description="Name printed on invoices (Stripe's `name`); null when it is not set."
    )
    email: str | None = strawberry.field(
        description="Address to which Stripe sends invoices (Stripe's `email`); null when it is not set."
    )
    currency: str | None = strawberry.field(
        description="ISO 4217 code in lower case (Stripe's `currency`); null before the first invoice.",
    )
    delinquent: bool = strawberry.field(
        description="True while a failed payment is still owed (Stripe's `delinquent`)."
    )
    credit_balance: Money = strawberry.field(
        description="Credit that the next invoice uses; positive when Fly.io owes the customer. Stripe's `balance` with the sign reversed.",
    )
    freshness: Freshness = strawberry.field(description="Source and age of this object's data.")

    @strawberry.field
    def stripe_dashboard_url(self, info: Info) -> str:
        """Support only: link to this customer in Stripe's Dashboard."""
        return dashboard_url(info.context, "customers", self.record.id)

    @strawberry.field
    async def default_payment_method(self, info: Info) -> PaymentMethod | None:
        """Payment method charged for the next invoice; null when none is set."""
        loaded = await info.context.loaders.default_payment_method.load(self.record.id)
        return PaymentMethod.from_record(loaded) if loaded else None

    @strawberry.field
    async def payment_methods(
        self,
        info: Info,
        first: First = PAYMENT_METHODS_PAGE_SIZE,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[PaymentMethod]:
        """Payment methods that Stripe stores for the customer, newest first."""
        request = page_request(first, after, last, before, default=PAYMENT_METHODS_PAGE_SIZE)
        await self._check_cursor_ownership(info.context, request, self._owns_payment_method)
        load = info.context.loaders.payment_methods.load
        page = await load_page(info, request, lambda part: load(PageKey(self.record.id, part)))
        entries = [(loaded.value.id, PaymentMethod.from_record(loaded)) for loaded in page.items]
        return Connection[PaymentMethod].from_entries(
            entries, has_more=page.has_more, request=request
        )

    @strawberry.field
    async def invoices(
        self,
        info: Info,
        first: First = INVOICES_PAGE_SIZE,
        after: After = None,
        last: Last = None,
        before: Before = None,
        status: Annotated[
            InvoiceStatus | None,
            strawberry.argument(description="Return only invoices with this status."),
        ] = None,
    ) -> Connection[Invoice]:
        """Invoices of the customer, newest first, including drafts."""
        request = page_request(first, after, last, before, default=INVOICES_PAGE_SIZE)
        await self._check_cursor_ownership(info.context, request, self._owns_invoice)
        load = info.context.loaders.invoices.load
        page = await load_page(
            info, request, lambda part: load(InvoicesKey(self.record.id, part, status))
        )
        entries = [(loaded.value.id, Invoice.from_record(loaded)) for loaded in page.items]
        return Connection[Invoice].from_entries(entries, has_more=page.has_more, request=request)

    @strawberry.field
    async def current_period(self, info: Info) -> BillingPeriod:
        """Usage and amounts of the current month, up to the last recorded delta, sent to Stripe or not."""
        snapshot = await info.context.loaders.snapshot.load(self.record.id)
        prices = await info.context.loaders.prices(snapshot)
        return BillingPeriod.from_snapshot(
            snapshot, prices, self.record.currency or DEFAULT_CURRENCY
        )

    @strawberry.field
    async def period(
        self,
        info: Info,
        month: Annotated[str, strawberry.argument(description='Month in the form "2026-10".')],
    ) -> BillingPeriod | None:
        """Usage and amounts of one month; null when the ledger has none for it, or no longer has them."""
        wanted = usage_validation.parse_month(month)
        if wanted is None:
            raise bad_input(usage_validation.MONTH_FORMAT)
        currency = self.record.currency or DEFAULT_CURRENCY
        return await BillingPeriod.find(info.context, self.record.id, wanted, currency)

    @strawberry.field
    async def spend_history(
        self,
        info: Info,
        months: Annotated[
            int | None,
            strawberry.argument(
                description="Number of months to go back, including the current one, 1 to 60."
            ),
        ] = DEFAULT_MONTHS,
    ) -> list[MonthlySpend]:
        """Billed amounts by calendar month, newest first; months without an invoice are omitted."""
        back = DEFAULT_MONTHS if months is None else months
        if not 1 <= back <= MAX_MONTHS:
            raise bad_input(f"`months` goes from 1 to {MAX_MONTHS}.")
        return await spend_by_month(info.context, self.record.id, back)

    @strawberry.field
    async def sync_state(self, info: Info) -> SyncState:
        """Progress of sending recorded usage to Stripe, and the time of the next sync."""
        snapshot, last = await asyncio.gather(
            info.context.loaders.snapshot.load(self.record.id),
            info.context.loaders.last_sync.load(self.record.id),
        )
        return SyncState.from_snapshot(snapshot, last)

    @strawberry.field
    async def hold(self, info: Info) -> BillingHold | None:
        """Support only: the active billing hold; null when billing is not on hold."""
        hold = await info.context.loaders.hold.load(self.record.id)
        return BillingHold.from_record(hold) if hold else None

    @strawberry.field
    async def adjustments(
        self, info: Info, first: First = ADJUSTMENTS_PAGE_SIZE, after: After = None
    ) -> Connection[Adjustment]:
        """Support only: adjustments of this customer's usage, newest first."""
        services, request = (
            info.context.uncached_services(),
            page_request(first, after, default=ADJUSTMENTS_PAGE_SIZE),
        )
        page = await services.ledger.list_adjustments(self.record.id, request.size, request.after)
        prices = await services.price_catalog.by_id(adjustment.price for adjustment in page.items)
        entries = [
            (adjustment.id, Adjustment.from_record(adjustment, prices[adjustment.price]))
            for adjustment in page.items
        ]
        return Connection[Adjustment].from_entries(entries, has_more=page.has_more, request=request)

    @strawberry.field
    async def drift(self, info: Info) -> DriftReport:
        """Support only: differences between the ledger and Stripe's drafts; reads Stripe on every call."""
        return await DriftReport.compare(info.context.uncached_services(), self.record.id)

    @strawberry.field
    async def audit_log(
        self, info: Info, first: First = AUDIT_LOG_PAGE_SIZE, after: After = None
    ) -> Connection[AuditEntry]:
        """Support only: audited actions on this customer, newest first."""
        request = page_request(first, after, default=AUDIT_LOG_PAGE_SIZE)
        page = await info.context.uncached_services().audit.page(
            self.record.id, request.size, request.after
        )
        entries = [(entry.id, AuditEntry.from_record(entry)) for entry in page.items]
        return Connection[AuditEntry].from_entries(entries, has_more=page.has_more, request=request)

    async def _check_cursor_ownership(
        self,
        context: Context,
        request: PageRequest,
        owns: Callable[[Context, str], Awaitable[bool]],
    ) -> None:
        """Reject a cursor of another customer's object exactly as Stripe rejects an unknown one.

        Stripe pages from any object of the account, which would reveal that the object exists.
        """
        if context.viewer.role is Role.SUPPORT:
            return
        for argument, cursor in (("after", request.after), ("before", request.before)):
            if cursor and not await owns(context, cursor):
                context.missed_lookups += 1
                raise unknown_cursor(argument)

    async def _owns_invoice(self, context: Context, invoice: str) -> bool:
        return bool(await context.loaders.visible_invoice(invoice, self.record.id.__eq__))

    async def _owns_payment_method(self, context: Context, payment_method: str) -> bool:
        loaded = await context.loaders.payment_method.load(payment_method)
        return loaded is not None and loaded.value.customer == self.record.id

    @classmethod
    async def find(cls, context: Context, customer: str) -> "Customer | None":
        """The customer with this id, None when Stripe has none; the caller checks that the viewer may see it."""
        loaded = await context.loaders.customer.load(customer)
        return cls.from_record(loaded) if loaded else None

    @classmethod
    def from_record(cls, loaded: Loaded[CustomerRecord]) -> "Customer":
        """Convert a customer read from Stripe."""
        record = loaded.value
        return cls(
            owner=record.id,
            id=strawberry.ID(record.id),
            record=record,
            organization=record.organization,
            name=record.name,
            email=record.email,
            currency=record.currency,
            delinquent=record.delinquent,
            credit_balance=Money.from_minor(-record.balance, record.currency or DEFAULT_CURRENCY),
            freshness=Freshness(source=loaded.source, fetched_at=loaded.fetched_at),
        )


async def existing_customer(info: Info, customer: CustomerId) -> Customer:
    """The owner of an object that the viewer may see; Refused (NOT_FOUND) when Stripe has deleted it."""
    info.context.note_selection(info)
    owner = await Customer.find(info.context, customer)
    if owner is None:
        raise Refused(ErrorCode.NOT_FOUND, f"Customer {customer} was deleted in Stripe.")
    return owner


async def customers_page(
    info: Info, request: PageRequest, email: str | None = None
) -> Connection[Customer]:
    """One page of all customers, newest first, or of those with this *email*."""
    load = info.context.loaders.customers.load
    page = await load_page(info, request, lambda part: load(CustomersKey(part, email or None)))
    entries = [(loaded.value.id, Customer.from_record(loaded)) for loaded in page.items]
    return Connection[Customer].from_entries(entries, has_more=page.has_more, request=request)
