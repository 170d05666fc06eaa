"""The sync plan type: the changes that a sync would write to Stripe."""

from decimal import Decimal

import strawberry

from billing.invoicing.amounts import compute_amounts, preview_flush
from billing.invoicing.request_batch import PlannedLine as Planned
from billing.usage import LineKey
from resolvers.billing_periods import PricedSnapshot
from resolvers.mutations.preview_sync import correction_warnings
from schema.decorators import graphql_type
from schema.info import Info
from schema.stripe_links import dashboard_url
from schema.types.money import Money

REMOVED_LINE = Planned(quantity=Decimal(0), price="", amount=0)


@graphql_type
class PlannedLine:
    """An invoice line as it would be after a sync."""

    sku: str = strawberry.field(description="SKU that the line bills.")
    quantity: Decimal = strawberry.field(
        description="Quantity after the sync; 0 for a removed line."
    )
    amount: Money = strawberry.field(description="Amount of the line after the sync.")
    was_quantity: Decimal | None = strawberry.field(
        description="Quantity at Stripe now; null for a new line."
    )
    price: strawberry.Private[str]

    @strawberry.field
    def stripe_dashboard_url(self, info: Info) -> str | None:
        """Link to the line's price in Stripe's Dashboard; null for the line that combines many small ones."""
        return dashboard_url(info.context, "prices", self.price) if self.price else None


@graphql_type
class SyncPlan:
    """Changes that a sync would write to Stripe; nothing has been written."""

    creates_invoice: bool = strawberry.field(
        description="True when the sync would create the month's draft."
    )
    lines_added: list[PlannedLine] = strawberry.field(description="Lines that would be added.")
    lines_updated: list[PlannedLine] = strawberry.field(description="Lines that would be updated.")
    lines_removed: list[PlannedLine] = strawberry.field(description="Lines that would be removed.")
    warnings: list[str] = strawberry.field(
        description="Doubts about the previewed correction, such as one larger than the month's usage of the SKU; they block nothing."
    )
    total: Money = strawberry.field(description="Total amount of the month after the sync.")
    stripe_calls: int = strawberry.field(
        description="Number of writes to Stripe that the sync would make."
    )

    @classmethod
    def from_record(cls, period: PricedSnapshot) -> "SyncPlan":
        """Preview a sync of *period*."""
        snapshot, prices = period.snapshot, period.prices

        def line(key: LineKey, planned: Planned, was: Decimal | None = None) -> PlannedLine:
            return PlannedLine(
                sku=period.sku_of(key),
                quantity=planned.quantity,
                amount=Money.from_minor(planned.amount, snapshot.currency),
                was_quantity=was,
                price=snapshot.prices.get(key, planned.price),
            )

        plan = preview_flush(snapshot, prices)
        change = plan.diff
        return cls(
            creates_invoice=plan.creates_invoice,
            lines_added=[line(added.key, added.line) for added in change.added],
            lines_updated=[
                line(updated.key, updated.line, updated.current.quantity)
                for updated in change.updated
            ],
            lines_removed=[line(key, REMOVED_LINE, was.quantity) for key, was in change.removed],
            warnings=correction_warnings(period),
            total=Money.from_money(compute_amounts(snapshot, prices).total),
            stripe_calls=plan.calls,
        )
