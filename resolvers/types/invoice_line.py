"""One line of an invoice."""

from datetime import datetime
from decimal import Decimal

import strawberry

from billing.pagination import Window
from billing.stripe.records import InvoiceRecord, LineRecord
from resolvers.context import Context, Info
from resolvers.dataloaders.stripe import PageOf
from resolvers.types.stripe_links import dashboard
from schema.connections import MOST
from schema.decorators import graphql_type
from schema.types.money import Money
from schema.types.node import Node


@graphql_type
class InvoiceLine(Node):
    """One line of an invoice, as Stripe has it."""

    id: strawberry.ID = strawberry.field(description="Stripe's id, `il_…`.")
    invoice: strawberry.Private[str]
    description: str | None = strawberry.field(description="What the customer reads on the bill.")
    sku: str | None = strawberry.field(
        description="The SKU that this line bills; null for a correction by Support and for a line that a person "
        "put there.",
    )
    quantity: Decimal | None = strawberry.field(
        description="How much, in the unit that the price counts. Negative for a credit.",
    )
    unit_amount: Decimal | None = strawberry.field(
        description="What one unit costs, in minor units (cents), with up to twelve decimals.",
    )
    amount: Money = strawberry.field(
        description="What the line comes to; Stripe rounds each line by itself."
    )
    period_start: datetime | None = strawberry.field(
        description="First moment that the line bills."
    )
    period_end: datetime | None = strawberry.field(description="Last moment that the line bills.")

    @strawberry.field
    def stripe_dashboard_url(self, info: Info) -> str:
        """Support only: the invoice that it stands on, in Stripe's Dashboard; lines have no page there."""
        return dashboard(info.context, "invoices", self.invoice)

    @classmethod
    async def find(cls, context: Context, line: str) -> "InvoiceLine | None":
        """The line with this id, if it was shown lately and the viewer may see it."""
        place = await context.services.line_places.place_of(line)
        if place is None or not context.viewer.may_see(place.customer):
            return None
        invoice = await context.loaders.invoice.load(place.invoice)
        after, more = None, invoice is not None
        while invoice and more:
            page = await context.loaders.lines.load(PageOf(invoice.value.id, Window(MOST, after)))
            for record in page.items:
                if record.id == line:
                    return cls.of(record, invoice.value)
            after, more = page.items[-1].id if page.items else None, page.has_more
        return None

    @classmethod
    def of(cls, record: LineRecord, invoice: InvoiceRecord) -> "InvoiceLine":
        """*record*, a line of *invoice*, as clients see it."""
        return cls(
            owner=invoice.customer,
            id=strawberry.ID(record.id),
            invoice=invoice.id,
            description=record.description,
            sku=record.sku,
            quantity=record.quantity,
            unit_amount=record.unit_amount,
            amount=Money.of_minor(record.amount, record.currency),
            period_start=record.period_start,
            period_end=record.period_end,
        )
