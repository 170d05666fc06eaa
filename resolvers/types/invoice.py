"""An invoice, and what Support may do with it now."""

from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import strawberry

from billing.stripe.records import InvoiceRecord
from resolvers.context import Context, Info
from resolvers.dataloaders.selection import page_of
from resolvers.dataloaders.stripe import Loaded, PageOf
from resolvers.types.invoice_action import InvoiceAction, actions
from resolvers.types.invoice_line import InvoiceLine
from resolvers.types.stripe_links import dashboard
from schema.connections import After, Before, Connection, First, Last, window_of
from schema.decorators import graphql_enum, graphql_type
from schema.types.freshness import Freshness
from schema.types.money import Money
from schema.types.node import Node

if TYPE_CHECKING:
    from resolvers.types.billing_period import BillingPeriod
    from resolvers.types.customer import Customer

LINES = 50


@graphql_enum(
    DRAFT="Still being compiled; the customer does not see it.",
    OPEN="Finalized and waiting to be paid.",
    PAID="Paid, or too small to be charged.",
    UNCOLLECTIBLE="Given up.",
    VOID="Cancelled after it was finalized.",
)
class InvoiceStatus(StrEnum):
    """Where an invoice stands, in Stripe's words."""

    DRAFT = "draft"
    OPEN = "open"
    PAID = "paid"
    UNCOLLECTIBLE = "uncollectible"
    VOID = "void"


@graphql_type
class Invoice(Node):
    """An invoice of Stripe's. Amounts are Stripe's own; what it does not know yet is in `Customer.currentPeriod`."""

    id: strawberry.ID = strawberry.field(description="Stripe's id, `in_…`.")
    record: strawberry.Private[InvoiceRecord]
    number: str | None = strawberry.field(
        description="What the customer sees on it; null until it is finalized."
    )
    status: InvoiceStatus = strawberry.field(description="Where it stands.")
    period_start: datetime | None = strawberry.field(description="First moment that it bills.")
    period_end: datetime | None = strawberry.field(
        description="First moment that it no longer bills."
    )
    created_at: datetime = strawberry.field(description="When the draft was made.")
    finalizes_at: datetime | None = strawberry.field(
        description="When Stripe finalizes it by itself; null when we decide, at the end of the month.",
    )
    due_at: datetime | None = strawberry.field(description="When it has to be paid.")
    hosted_invoice_url: str | None = strawberry.field(
        description="Where the customer pays: Stripe's page, not ours. Null until finalized.",
    )
    invoice_pdf: str | None = strawberry.field(
        description="The PDF, at Stripe. Null until finalized."
    )
    freshness: Freshness = strawberry.field(description="How old this is, and where it came from.")

    @strawberry.field
    def subtotal(self) -> Money:
        """The lines, before tax."""
        return self._money(self.record.subtotal)

    @strawberry.field
    def tax(self) -> Money | None:
        """Tax; null when Stripe computed none."""
        return None if self.record.tax is None else self._money(self.record.tax)

    @strawberry.field
    def total(self) -> Money:
        """The lines with tax."""
        return self._money(self.record.total)

    @strawberry.field
    def amount_due(self) -> Money:
        """What is to be paid, after the customer's balance."""
        return self._money(self.record.amount_due)

    @strawberry.field
    def amount_paid(self) -> Money:
        """What has been paid."""
        return self._money(self.record.amount_paid)

    @strawberry.field
    def stripe_dashboard_url(self, info: Info) -> str:
        """Support only: this invoice in Stripe's Dashboard, for refunds, credit notes and voids."""
        return dashboard(info.context, "invoices", self.record.id)

    @strawberry.field
    async def customer(
        self, info: Info
    ) -> Annotated["Customer", strawberry.lazy("resolvers.types.customer")]:
        """Whose it is."""
        from resolvers.types.customer import customer_of  # noqa: PLC0415 customers have invoices

        return await customer_of(info, self.record.customer)

    @strawberry.field
    async def lines(
        self,
        info: Info,
        first: First = LINES,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[InvoiceLine]:
        """Its lines, in Stripe's order."""
        window = window_of(first, after, last, before, default=LINES)
        load = info.context.loaders.lines.load
        page = await page_of(info, window, lambda part: load(PageOf(self.record.id, part)))
        entries = [(line.id, InvoiceLine.of(line, self.record)) for line in page.items]
        return Connection[InvoiceLine].of(entries, has_more=page.has_more, window=window)

    @strawberry.field
    async def usage_period(
        self, info: Info
    ) -> Annotated["BillingPeriod", strawberry.lazy("resolvers.types.billing_period")] | None:
        """The month that it bills, as we count it; null when it is not of our making, or long ago."""
        from resolvers.types.billing_period import BillingPeriod  # noqa: PLC0415 months have invoices

        month, customer = self.record.period, self.record.customer
        if month is None:
            return None
        return await BillingPeriod.find(info.context, customer, month, self.record.currency)

    @strawberry.field
    async def available_actions(self, info: Info) -> list[InvoiceAction]:
        """Support only: what can be done now and, for what cannot, why."""
        return await actions(info.context, self.record)

    @classmethod
    async def find(cls, context: Context, invoice: str) -> "Invoice | None":
        """The invoice with this id, if Stripe has it; whether it may be seen is the caller's to check."""
        loaded = await context.loaders.invoice.load(invoice)
        return cls.of(loaded) if loaded else None

    @classmethod
    async def find_own(cls, context: Context, invoice: str) -> "Invoice | None":
        """The invoice with this id if the viewer may see it; None, told in the same time, if not."""
        loaded = await context.loaders.own_invoice(invoice, context.viewer.may_see)
        return cls.of(loaded) if loaded else None

    @classmethod
    def of(cls, loaded: Loaded[InvoiceRecord]) -> "Invoice":
        """The invoice as clients see it."""
        record = loaded.value
        period = record.period
        return cls(
            owner=record.customer,
            id=strawberry.ID(record.id),
            record=record,
            number=record.number,
            status=InvoiceStatus(record.status),
            period_start=period.start if period else record.period_start,
            period_end=period.end if period else record.period_end,
            created_at=record.created,
            finalizes_at=record.finalizes_at,
            due_at=record.due_date,
            hosted_invoice_url=record.hosted_invoice_url,
            invoice_pdf=record.invoice_pdf,
            freshness=Freshness(source=loaded.source, fetched_at=loaded.fetched_at),
        )

    def _money(self, minor: int) -> Money:
        return Money.of_minor(minor, self.record.currency)
