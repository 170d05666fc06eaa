"""The invoice line type."""

from datetime import datetime
from decimal import Decimal

import strawberry

from billing.pagination import PageRequest
from billing.stripe.records import InvoiceRecord, LineRecord
from resolvers.context import Context, Info
from resolvers.dataloaders.stripe import PageKey
from resolvers.types.stripe_links import dashboard_url
from schema.connections import MAX_PAGE_SIZE
from schema.decorators import graphql_type
from schema.types.money import Money
from schema.types.node import Node


@graphql_type
class InvoiceLine(Node):
    """A line of an invoice, as Stripe has it."""

    id: strawberry.ID = strawberry.field(description="Stripe line id, `il_…`.")
    invoice: strawberry.Private[str]
    description: str | None = strawberry.field(description="Text of the line on the invoice.")
    sku: str | None = strawberry.field(
        description="SKU that the line bills; null for an adjustment and for a line added by a person.",
    )
    quantity: Decimal | None = strawberry.field(
        description="Quantity in the unit of the price; negative for a credit. Null when Stripe states none.",
    )
    unit_amount: Decimal | None = strawberry.field(
        description="Price of one unit in minor units (cents), with up to twelve decimal places; null when Stripe states none.",
    )
    amount: Money = strawberry.field(
        description="Amount of the line; Stripe rounds each line separately."
    )
    period_start: datetime | None = strawberry.field(
        description="Start of the billed period, inclusive."
    )
    period_end: datetime | None = strawberry.field(
        description="End of the billed period, inclusive."
    )

    @strawberry.field
    def stripe_dashboard_url(self, info: Info) -> str:
        """Support only: link to the line's invoice in Stripe's Dashboard, which has no page for a line."""
        return dashboard_url(info.context, "invoices", self.invoice)

    @classmethod
    async def find(cls, context: Context, line: str) -> "InvoiceLine | None":
        """The line with this id, if it was shown recently and the viewer may see it."""
        place = await context.uncached_services().line_index.find(line)
        if place is None or not context.viewer.may_see(place.customer):
            return None
        invoice = await context.loaders.invoice.load(place.invoice)
        after, more = None, invoice is not None
        while invoice and more:
            page = await context.loaders.lines.load(
                PageKey(invoice.value.id, PageRequest(MAX_PAGE_SIZE, after))
            )
            for record in page.items:
                if record.id == line:
                    return cls.from_record(record, invoice.value)
            after, more = page.items[-1].id if page.items else None, page.has_more
        return None

    @classmethod
    def from_record(cls, record: LineRecord, invoice: InvoiceRecord) -> "InvoiceLine":
        """Convert *record*, a line of *invoice*."""
        return cls(
            owner=invoice.customer,
            id=strawberry.ID(record.id),
            invoice=invoice.id,
            description=record.description,
            sku=record.sku,
            quantity=record.quantity,
            unit_amount=record.unit_amount,
            amount=Money.from_minor(record.amount, record.currency),
            period_start=record.period_start,
            period_end=record.period_end,
        )
