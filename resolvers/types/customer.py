"""A customer: what it owes, what it was billed, how it pays, and what Support knows about it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated

import strawberry

from billing import usage_validation
from billing.errors import ErrorCode, Refused
from billing.pagination import Window
from billing.stripe.records import CustomerRecord
from billing.usage import CustomerId
from resolvers.context import Context, Info, Role
from resolvers.dataloaders.cached_reads import unknown_cursor
from resolvers.dataloaders.selection import page_of
from resolvers.dataloaders.stripe import Customers, InvoicesOf, Loaded, PageOf
from resolvers.types.adjustment import Adjustment
from resolvers.types.audit import AuditEntry
from resolvers.types.billing_period import BillingPeriod
from resolvers.types.drift import DriftReport
from resolvers.types.hold import BillingHold
from resolvers.types.invoice import Invoice, InvoiceStatus
from resolvers.types.payment_method import PaymentMethod
from resolvers.types.spend import MOST_MONTHS, MonthlySpend, spend_by_month
from resolvers.types.stripe_links import dashboard
from resolvers.types.sync import SyncState
from schema.connections import (
    After,
    Before,
    Connection,
    First,
    Last,
    bad_input,
    window_of,
)
from schema.decorators import graphql_type
from schema.types.freshness import Freshness
from schema.types.money import Money
from schema.types.node import Node

CUSTOMERS = 20
PAYMENT_METHODS = 10
INVOICES = 20
ADJUSTMENTS = 20
ENTRIES = 50
MONTHS = 12
UNBILLED = "usd"
"""A customer has no currency before its first invoice, nor a balance other than zero."""


@graphql_type
class Customer(Node):
    """One Stripe customer: one paying Fly organization, with the organizations linked to it."""

    id: strawberry.ID = strawberry.field(description="Stripe's id, `cus_…`.")
    record: strawberry.Private[CustomerRecord]
    organization: str | None = strawberry.field(
        description="Slug of the Fly organization, from the metadata of the Stripe customer.",
    )
    name: str | None = strawberry.field(description="As on its invoices.")
    email: str | None = strawberry.field(description="Where Stripe sends its invoices.")
    currency: str | None = strawberry.field(
        description="ISO 4217 in lower case; null before anything was billed.",
    )
    delinquent: bool = strawberry.field(
        description="Whether a payment has failed and is still owed."
    )
    credit_balance: Money = strawberry.field(
        description="Positive: Fly owes the customer, and the next invoice uses it up.",
    )
    freshness: Freshness = strawberry.field(description="How old this is, and where it came from.")

    @strawberry.field
    def stripe_dashboard_url(self, info: Info) -> str:
        """Support only: this customer in Stripe's Dashboard."""
        return dashboard(info.context, "customers", self.record.id)

    @strawberry.field
    async def default_payment_method(self, info: Info) -> PaymentMethod | None:
        """What the next invoice is paid with."""
        loaded = await info.context.loaders.default_payment_method.load(self.record.id)
        return PaymentMethod.of(loaded) if loaded else None

    @strawberry.field
    async def payment_methods(
        self,
        info: Info,
        first: First = PAYMENT_METHODS,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[PaymentMethod]:
        """The ways to pay that Stripe keeps, newest first."""
        window = window_of(first, after, last, before, default=PAYMENT_METHODS)
        await self._must_own(info.context, window, self._has_card)
        load = info.context.loaders.payment_methods.load
        page = await page_of(info, window, lambda part: load(PageOf(self.record.id, part)))
        entries = [(loaded.value.id, PaymentMethod.of(loaded)) for loaded in page.items]
        return Connection[PaymentMethod].of(entries, has_more=page.has_more, window=window)

    @strawberry.field
    async def invoices(
        self,
        info: Info,
        first: First = INVOICES,
        after: After = None,
        last: Last = None,
        before: Before = None,
        status: Annotated[
            InvoiceStatus | None, strawberry.argument(description="Only those that stand here.")
        ] = None,
    ) -> Connection[Invoice]:
        """Its invoices, newest first, drafts included."""
        window = window_of(first, after, last, before, default=INVOICES)
        await self._must_own(info.context, window, self._has_invoice)
        load = info.context.loaders.invoices.load
        page = await page_of(
            info, window, lambda part: load(InvoicesOf(self.record.id, part, status))
        )
        entries = [(loaded.value.id, Invoice.of(loaded)) for loaded in page.items]
        return Connection[Invoice].of(entries, has_more=page.has_more, window=window)

    @strawberry.field
    async def current_period(self, info: Info) -> BillingPeriod:
        """Month to date, to the last recorded delta, whatever Stripe has been told so far."""
        snapshot = await info.context.loaders.snapshot.load(self.record.id)
        prices = await info.context.loaders.prices(snapshot)
        return BillingPeriod.of(snapshot, prices, self.record.currency or UNBILLED)

    @strawberry.field
    async def period(
        self,
        info: Info,
        month: Annotated[str, strawberry.argument(description='Which, as "2026-10".')],
    ) -> BillingPeriod | None:
        """One month, also one that has ended; null when nothing was counted in it, or it was long ago."""
        wanted = usage_validation.month(month)
        if wanted is None:
            raise bad_input(usage_validation.MONTH_FORM)
        currency = self.record.currency or UNBILLED
        return await BillingPeriod.find(info.context, self.record.id, wanted, currency)

    @strawberry.field
    async def spend_history(
        self,
        info: Info,
        months: Annotated[
            int | None, strawberry.argument(description="How many months back, 1 to 60.")
        ] = MONTHS,
    ) -> list[MonthlySpend]:
        """What was billed, by calendar month, newest first; months without an invoice are left out."""
        back = MONTHS if months is None else months
        if not 1 <= back <= MOST_MONTHS:
            raise bad_input(f"`months` goes from 1 to {MOST_MONTHS}.")
        return await spend_by_month(info.context, self.record.id, back)

    @strawberry.field
    async def sync_state(self, info: Info) -> SyncState:
        """Whether Stripe knows what was recorded, and when it will."""
        snapshot, last = await asyncio.gather(
            info.context.loaders.snapshot.load(self.record.id),
            info.context.loaders.last_sync.load(self.record.id),
        )
        return SyncState.of(snapshot, last)

    @strawberry.field
    async def hold(self, info: Info) -> BillingHold | None:
        """Support only: why billing is on hold; null when it is not."""
        hold = await info.context.loaders.hold.load(self.record.id)
        return BillingHold.of(hold) if hold else None

    @strawberry.field
    async def adjustments(
        self, info: Info, first: First = ADJUSTMENTS, after: After = None
    ) -> Connection[Adjustment]:
        """Support only: corrections made so far, newest first."""
        services, window = info.context.services, window_of(first, after, default=ADJUSTMENTS)
        page = await services.ledger.adjustments(self.record.id, window.size, window.after)
        prices = await services.catalogue.by_id(each.price for each in page.items)
        entries = [(each.id, Adjustment.of(each, prices[each.price])) for each in page.items]
        return Connection[Adjustment].of(entries, has_more=page.has_more, window=window)

    @strawberry.field
    async def drift(self, info: Info) -> DriftReport:
        """Support only: the ledger against Stripe's drafts, line by line; asks Stripe each time."""
        return await DriftReport.of(info.context.services, self.record.id)

    @strawberry.field
    async def audit_log(
        self, info: Info, first: First = ENTRIES, after: After = None
    ) -> Connection[AuditEntry]:
        """Support only: what Support did about this customer, newest first."""
        window = window_of(first, after, default=ENTRIES)
        page = await info.context.services.audit.page(self.record.id, window.size, window.after)
        entries = [(entry.id, AuditEntry.of(entry)) for entry in page.items]
        return Connection[AuditEntry].of(entries, has_more=page.has_more, window=window)

    async def _must_own(
        self, context: Context, window: Window, has: Callable[[Context, str], Awaitable[bool]]
    ) -> None:
        """Refuse a cursor that is somebody else's as Stripe refuses one that is nobody's.

        Stripe itself pages from whatever the account has, which would tell that it exists.
        """
        if context.viewer.role is Role.SUPPORT:
            return
        for argument, cursor in (("after", window.after), ("before", window.before)):
            if cursor and not await has(context, cursor):
                context.in_vain += 1
                raise unknown_cursor(argument)

    async def _has_invoice(self, context: Context, invoice: str) -> bool:
        return bool(await context.loaders.own_invoice(invoice, self.record.id.__eq__))

    async def _has_card(self, context: Context, card: str) -> bool:
        found = await context.loaders.payment_method.load(card)
        return found is not None and found.value.customer == self.record.id

    @classmethod
    async def find(cls, context: Context, customer: str) -> "Customer | None":
        """The customer with this id, if Stripe has it; whether it may be seen is the caller's to check."""
        loaded = await context.loaders.customer.load(customer)
        return cls.of(loaded) if loaded else None

    @classmethod
    def of(cls, loaded: Loaded[CustomerRecord]) -> "Customer":
        """The customer as clients see it."""
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
            credit_balance=Money.of_minor(-record.balance, record.currency or UNBILLED),
            freshness=Freshness(source=loaded.source, fetched_at=loaded.fetched_at),
        )


async def customer_of(info: Info, customer: CustomerId) -> Customer:
    """Whose an object is that the viewer may see; Refused when Stripe has deleted the customer since."""
    info.context.look_ahead(info)
    found = await Customer.find(info.context, customer)
    if found is None:
        raise Refused(ErrorCode.NOT_FOUND, f"Customer {customer} was deleted in Stripe.")
    return found


async def customers_page(
    info: Info, window: Window, email: str | None = None
) -> Connection[Customer]:
    """A page of all customers, newest first, or of those with this *email*."""
    load = info.context.loaders.customers.load
    page = await page_of(info, window, lambda part: load(Customers(part, email or None)))
    entries = [(loaded.value.id, Customer.of(loaded)) for loaded in page.items]
    return Connection[Customer].of(entries, has_more=page.has_more, window=window)
