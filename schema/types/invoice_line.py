"""The invoice line type."""

from datetime import datetime
from decimal import Decimal

import strawberry

from billing.stripe.records import InvoiceRecord, LineRecord
from schema.decorators import graphql_type
from schema.info import Info
from schema.stripe_links import dashboard_url
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
    def from_record(cls, record: LineRecord, invoice: InvoiceRecord) -> "InvoiceLine":
        """Convert *record*, a line of *invoice*."""
        return cls(
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
