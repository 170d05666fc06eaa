"""The invoice type."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import strawberry

from billing.stripe.records import InvoiceRecord
from resolvers.billing_periods import find_period
from resolvers.bills import invoice_bill
from resolvers.dataloaders.stripe import Loaded
from resolvers.invoices import available_actions
from schema.connections import After, Before, Connection, First, Last, connect, page_request
from schema.decorators import graphql_enum, graphql_type
from schema.info import Info
from schema.stripe_links import dashboard_url
from schema.types.bill import Bill
from schema.types.freshness import Freshness
from schema.types.invoice_action import InvoiceAction
from schema.types.invoice_line import InvoiceLine
from schema.types.money import Money
from schema.types.node import Node
from schema.types.payment_failure import PaymentFailure

if TYPE_CHECKING:
    from schema.types.billing_period import BillingPeriod
    from schema.types.customer import Customer

LINES_PAGE_SIZE = 50


@graphql_enum(
    DRAFT="Not finalized yet: it can still change, and Stripe does not show it to the customer.",
    OPEN="Finalized and awaiting payment.",
    PAID="Paid, or too small to be charged.",
    UNCOLLECTIBLE="Written off: payment is not expected.",
    VOID="Canceled after it was finalized.",
)
class InvoiceStatus(StrEnum):
    """Status of an invoice, as Stripe defines it."""

    DRAFT = "draft"
    OPEN = "open"
    PAID = "paid"
    UNCOLLECTIBLE = "uncollectible"
    VOID = "void"


@graphql_enum(
    CHARGE_AUTOMATICALLY="Stripe charges the default payment method when the invoice is finalized.",
    SEND_INVOICE="Stripe sends the invoice to the customer, who pays it by `dueAt`.",
)
class CollectionMethod(StrEnum):
    """Way in which an invoice is collected, as Stripe defines it."""

    CHARGE_AUTOMATICALLY = "charge_automatically"
    SEND_INVOICE = "send_invoice"


@graphql_type
class Invoice(Node):
    """An invoice in Stripe. Its amounts are Stripe's; `Customer.currentPeriod` has usage that Stripe lacks."""

    id: strawberry.ID = strawberry.field(description="Stripe invoice id, `in_…`.")
    record: strawberry.Private[InvoiceRecord]
    number: str | None = strawberry.field(
        description="Number printed on the invoice; null until it is finalized."
    )
    status: InvoiceStatus = strawberry.field(description="Status of the invoice in Stripe.")
    period_start: datetime | None = strawberry.field(
        description="Start of the billed period, inclusive."
    )
    period_end: datetime | None = strawberry.field(
        description="End of the billed period, exclusive."
    )
    created_at: datetime = strawberry.field(
        description="Time at which the draft was created (Stripe's `created`)."
    )
    finalized_at: datetime | None = strawberry.field(
        description="Time at which the invoice was finalized: its date of issue; null for a draft."
    )
    paid_at: datetime | None = strawberry.field(
        description="Time at which the invoice was paid in full; null until then."
    )
    collection_method: CollectionMethod = strawberry.field(
        description="Way in which the invoice is collected."
    )
    payment_attempts: int = strawberry.field(
        description="Number of attempts to charge the invoice (Stripe's `attempt_count`)."
    )
    next_payment_attempt_at: datetime | None = strawberry.field(
        description="Time at which Stripe tries to charge again; null when it does not."
    )
    finalizes_at: datetime | None = strawberry.field(
        description="Time at which Stripe finalizes the draft by itself; null when the gateway finalizes it after the end of the month.",
    )
    due_at: datetime | None = strawberry.field(
        description="Time by which the invoice has to be paid (Stripe's `due_date`); null when Stripe charges it automatically."
    )
    hosted_invoice_url: str | None = strawberry.field(
        description="URL of Stripe's payment page; null until the invoice is finalized, and while `freshness.source` is STALE.",
    )
    invoice_pdf: str | None = strawberry.field(
        description="URL of the PDF at Stripe; null until the invoice is finalized, and while `freshness.source` is STALE."
    )
    freshness: Freshness = strawberry.field(description="Source and age of this object's data.")

    @strawberry.field
    def subtotal(self) -> Money:
        """Sum of the lines before tax (Stripe's `subtotal`)."""
        return self._money(self.record.subtotal)

    @strawberry.field
    def tax(self) -> Money | None:
        """Tax on the invoice; null when Stripe computed none."""
        return None if self.record.tax is None else self._money(self.record.tax)

    @strawberry.field
    def total(self) -> Money:
        """Sum of the lines including tax (Stripe's `total`)."""
        return self._money(self.record.total)

    @strawberry.field
    def amount_due(self) -> Money:
        """Amount to pay after the customer's balance is applied (Stripe's `amount_due`)."""
        return self._money(self.record.amount_due)

    @strawberry.field
    def amount_paid(self) -> Money:
        """Amount already paid (Stripe's `amount_paid`)."""
        return self._money(self.record.amount_paid)

    @strawberry.field
    def amount_remaining(self) -> Money:
        """Amount still to be paid (Stripe's `amount_remaining`)."""
        return self._money(self.record.amount_remaining)

    @strawberry.field
    def is_overdue(self) -> bool:
        """True when the invoice is open and `dueAt` has passed."""
        due = self.record.due_date
        return self.status is InvoiceStatus.OPEN and due is not None and due < datetime.now(UTC)

    @strawberry.field
    async def payment_failure(self, info: Info) -> PaymentFailure | None:
        """Reason for which the last attempt to charge failed; null unless an open invoice was charged in vain."""
        if self.status is not InvoiceStatus.OPEN or not self.record.attempt_count:
            return None
        failure = await info.context.loaders.payment_failure(self.record.id)
        return PaymentFailure.from_record(failure) if failure else None

    @strawberry.field
    async def bill(self, info: Info) -> Bill:
        """Amounts from the lines to `amountDue`, in rows that add up."""
        return Bill.from_record(await invoice_bill(info.context, self.record))

    @strawberry.field
    def stripe_dashboard_url(self, info: Info) -> str:
        """Support only: link to this invoice in Stripe's Dashboard, for refunds, credit notes and voids."""
        return dashboard_url(info.context, "invoices", self.record.id)

    @strawberry.field
    async def customer(
        self, info: Info
    ) -> Annotated["Customer", strawberry.lazy("schema.types.customer")]:
        """Customer to whom the invoice belongs."""
        from schema.types.customer import load_owner  # noqa: PLC0415 customers have invoices

        return await load_owner(info, self.record.customer)

    @strawberry.field
    async def lines(
        self,
        info: Info,
        first: First = LINES_PAGE_SIZE,
        after: After = None,
        last: Last = None,
        before: Before = None,
    ) -> Connection[InvoiceLine]:
        """Lines of the invoice, in Stripe's order."""
        request = page_request(first, after, last, before, default=LINES_PAGE_SIZE)
        load = info.context.loaders.lines
        return await connect(
            info,
            request,
            lambda part: load(self.record.id, part),
            lambda line: InvoiceLine.from_record(line, self.record),
        )

    @strawberry.field
    async def usage_period(
        self, info: Info
    ) -> Annotated["BillingPeriod", strawberry.lazy("schema.types.billing_period")] | None:
        """Ledger data of the month that the invoice bills; null for an invoice made by hand, or when the ledger no longer has it."""
        from schema.types.billing_period import BillingPeriod  # noqa: PLC0415 months have invoices

        record = self.record
        if record.period is None:
            return None
        period = await find_period(info.context, record.customer, record.period, record.currency)
        return BillingPeriod.from_record(period) if period else None

    @strawberry.field
    async def available_actions(self, info: Info) -> list[InvoiceAction]:
        """Support only: every action on the invoice and, for each blocked one, the reasons."""
        actions = await available_actions(info.context, self.record)
        return [
            InvoiceAction(action=kind, blocked_by=blockers) for kind, blockers in actions.items()
        ]

    @classmethod
    def from_record(cls, loaded: Loaded[InvoiceRecord]) -> "Invoice":
        """Convert an invoice read from Stripe."""
        record = loaded.value
        period = record.period
        return cls(
            id=strawberry.ID(record.id),
            record=record,
            number=record.number,
            status=InvoiceStatus(record.status),
            period_start=period.start if period else record.period_start,
            period_end=period.end if period else record.period_end,
            created_at=record.created,
            finalized_at=record.finalized,
            paid_at=record.paid,
            collection_method=CollectionMethod(record.collection_method),
            payment_attempts=record.attempt_count,
            next_payment_attempt_at=record.next_attempt,
            finalizes_at=record.finalizes_at,
            due_at=record.due_date,
            hosted_invoice_url=record.hosted_invoice_url,
            invoice_pdf=record.invoice_pdf,
            freshness=Freshness(source=loaded.source, fetched_at=loaded.fetched_at),
        )

    def _money(self, minor: int) -> Money:
        return Money.from_minor(minor, self.record.currency)
