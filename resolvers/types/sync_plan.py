"""What a sync would write to Stripe."""

from collections.abc import Mapping
from decimal import Decimal

import strawberry

from billing.invoicing.amounts import bill, preview
from billing.invoicing.snapshot import PlannedLine as Planned
from billing.invoicing.snapshot import Snapshot
from billing.usage import LineKey, Price
from resolvers.context import Info
from resolvers.types.skus import sku_of
from resolvers.types.stripe_links import dashboard
from schema.decorators import graphql_type
from schema.types.money import Money

NOTHING = Planned(quantity=Decimal(0), price="", amount=0)


@graphql_type
class PlannedLine:
    """A line as it would stand after a sync."""

    sku: str = strawberry.field(description="The SKU that it bills.")
    quantity: Decimal = strawberry.field(
        description="The quantity after the sync; 0 for a line that goes."
    )
    amount: Money = strawberry.field(description="What it then comes to.")
    was_quantity: Decimal | None = strawberry.field(
        description="The quantity at Stripe now; null for a new line."
    )
    price: strawberry.Private[str]

    @strawberry.field
    def stripe_dashboard_url(self, info: Info) -> str | None:
        """The price that it counts by, in Stripe's Dashboard; null for the line that stands for many."""
        return dashboard(info.context, "prices", self.price) if self.price else None


@graphql_type
class SyncPlan:
    """What a sync would tell Stripe; nothing has been written."""

    creates_invoice: bool = strawberry.field(description="Whether it would make the month's draft.")
    lines_added: list[PlannedLine] = strawberry.field(description="Lines that it would add.")
    lines_updated: list[PlannedLine] = strawberry.field(description="Lines that it would change.")
    lines_removed: list[PlannedLine] = strawberry.field(description="Lines that it would remove.")
    total: Money = strawberry.field(description="What the month then comes to.")
    stripe_calls: int = strawberry.field(description="Writes to Stripe that it would take.")

    @classmethod
    def of(cls, snapshot: Snapshot, prices: Mapping[str, Price]) -> "SyncPlan":
        """What a sync would make of *snapshot*; *prices* by id, every one that it pins."""

        def line(key: LineKey, planned: Planned, was: Decimal | None = None) -> PlannedLine:
            return PlannedLine(
                sku=sku_of(key, snapshot, prices),
                quantity=planned.quantity,
                amount=Money.of_minor(planned.amount, snapshot.currency),
                was_quantity=was,
                price=snapshot.prices.get(key, planned.price),
            )

        plan = preview(snapshot, prices)
        change = plan.change
        return cls(
            creates_invoice=plan.creates_invoice,
            lines_added=[line(each.key, each.line) for each in change.added],
            lines_updated=[line(each.key, each.line, each.was.quantity) for each in change.updated],
            lines_removed=[line(key, NOTHING, was.quantity) for key, was in change.removed],
            total=Money.of(bill(snapshot, prices).total),
            stripe_calls=plan.calls,
        )
