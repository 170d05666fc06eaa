"""The customer type: identity, invoices, usage, payment methods, and Support's view of it."""

import asyncio
from functools import partial
from typing import Annotated

import strawberry

from billing import usage_validation
from billing.stripe.records import CustomerRecord
from billing.usage import CustomerId
from resolvers import drift
from resolvers.adjustments import list_adjustments
from resolvers.billing_periods import current_period, find_period
from resolvers.customers import (
    DEFAULT_CURRENCY,
    list_invoices,
    list_payment_methods,
    load_owner_record,
)
from resolvers.dataloaders.stripe import Loaded
from resolvers.spend import MAX_MONTHS, spend_by_month
from schema.connections import (
    After,
    Before,
    Connection,
    First,
    Last,
    bad_input,
    connect,
    forward_only,
    page_request,
)
from schema.decorators import graphql_type
from schema.info import Info, note_selection
from schema.stripe_links import dashboard_url
from schema.types.adjustment import Adjustment
from schema.types.audit import AuditEntry
from schema.types.billing_period import BillingPeriod, MonthlySpend
from schema.types.drift import DriftReport
from schema.types.freshness import Freshness
from schema.types.hold import BillingHold
from schema.types.invoice import Invoice, InvoiceStatus
from schema.types.money import Money
from schema.types.node import Node
from schema.types.payment_method import PaymentMethod
from schema.types.sync import SyncState

CUSTOMERS_PAGE_SIZE = 20
PAYMENT_METHODS_PAGE_SIZE = 10
INVOICES_PAGE_SIZE = 20
ADJUSTMENTS_PAGE_SIZE = 20
AUDIT_LOG_PAGE_SIZE = 50
DEFAULT_MONTHS = 12


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
        loaded = await info.context.loaders.default_payment_method(self.record.id)
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
        load = partial(list_payment_methods, info.context, self.record.id)
        return await connect(info, request, load, PaymentMethod.from_record)

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
        load = partial(list_invoices, info.context, self.record.id, status=status)
        return await connect(info, request, load, Invoice.from_record)

    @strawberry.field
    async def current_period(self, info: Info) -> BillingPeriod:
        """Usage and amounts of the current month, up to the last recorded delta, sent to Stripe or not."""
        period = await current_period(info.context, self.record.id, self._currency)
        return BillingPeriod.from_record(period)

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
        period = await find_period(info.context, self.record.id, wanted, self._currency)
        return BillingPeriod.from_record(period) if period else None

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
        spend = await spend_by_month(info.context, self.record.id, back)
        return [MonthlySpend.from_record(month) for month in spend]

    @strawberry.field
    async def sync_state(self, info: Info) -> SyncState:
        """Progress of sending recorded usage to Stripe, and the time of the next sync."""
        snapshot, last = await asyncio.gather(
            info.context.loaders.snapshot(self.record.id),
            info.context.loaders.last_sync(self.record.id),
        )
        return SyncState.from_snapshot(snapshot, last)

    @strawberry.field
    async def hold(self, info: Info) -> BillingHold | None:
        """Support only: the active billing hold; null when billing is not on hold."""
        hold = await info.context.loaders.hold(self.record.id)
        return BillingHold.from_record(hold) if hold else None

    @strawberry.field
    async def adjustments(
        self, info: Info, first: First = ADJUSTMENTS_PAGE_SIZE, after: After = None
    ) -> Connection[Adjustment]:
        """Support only: adjustments of this customer's usage, newest first."""
        request = page_request(first, after, default=ADJUSTMENTS_PAGE_SIZE)
        load = partial(list_adjustments, info.context, self.record.id)
        return await connect(info, request, load, Adjustment.from_record)

    @strawberry.field
    async def drift(self, info: Info) -> DriftReport:
        """Support only: differences between the ledger and Stripe's drafts; reads Stripe on every call."""
        report = await drift.compare(info.context.bypass_loaders(), self.record.id)
        return DriftReport.from_record(report)

    @strawberry.field
    async def audit_log(
        self, info: Info, first: First = AUDIT_LOG_PAGE_SIZE, after: After = None
    ) -> Connection[AuditEntry]:
        """Support only: audited actions on this customer, newest first."""
        request = page_request(first, after, default=AUDIT_LOG_PAGE_SIZE)
        page = partial(info.context.bypass_loaders().audit.page, self.record.id)
        return await connect(info, request, forward_only(page), AuditEntry.from_record)

    @property
    def _currency(self) -> str:
        return self.record.currency or DEFAULT_CURRENCY

    @classmethod
    def from_record(cls, loaded: Loaded[CustomerRecord]) -> "Customer":
        """Convert a customer read from Stripe."""
        record = loaded.value
        return cls(
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


async def load_owner(info: Info, customer: CustomerId) -> Customer:
    """The owner of an object that the viewer may see; with nulls if Stripe has deleted it."""
    note_selection(info)
    return Customer.from_record(await load_owner_record(info.context, customer))
