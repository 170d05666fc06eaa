"""The billing period type: one month's usage, its amounts, and how much of them Stripe has."""

from collections.abc import Container, Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated

import strawberry

import billing.invoicing.snapshot
from billing.invoicing.amounts import UsageRow, compute_amounts, usage_by_group, usage_by_sku
from billing.invoicing.snapshot import Snapshot
from billing.ledger.queries import Dimension
from billing.usage import CustomerId, LineKey, Period, Price
from resolvers.context import Context, Info
from resolvers.types.invoice import Invoice
from resolvers.types.skus import sku_of
from resolvers.types.stripe_links import dashboard_url
from resolvers.types.timestamps import to_datetime
from schema.decorators import graphql_enum, graphql_type
from schema.types.money import Money

EMPTY_VERSION = "0:0"
"""Snapshot version of a month without usage, or whose data has expired."""


@graphql_enum(
    "PeriodState",
    OPEN="Usage is counted, including late usage until one hour after the end of the month.",
    CLOSING="The month has ended: the remaining usage is sent to Stripe, then the invoice is finalized.",
    CLOSED="The invoice is final; later usage is carried forward to the next month.",
    HELD="Billing is on hold: usage is counted, but nothing is sent to Stripe or finalized.",
)
class BillingPeriodState(StrEnum):
    """Lifecycle state of a billing month."""

    OPEN = "OPEN"
    CLOSING = "CLOSING"
    CLOSED = "CLOSED"
    HELD = "HELD"


@graphql_enum(
    SKU="One entry for each SKU.",
    APP="One entry for each Fly.io app.",
    REGION="One entry for each region.",
    ORGANIZATION="One entry for each linked organization.",
)
class UsageDimension(StrEnum):
    """Dimension by which usage is grouped."""

    SKU = "SKU"
    APP = "APP"
    REGION = "REGION"
    ORGANIZATION = "ORGANIZATION"


@graphql_type
class UsageBreakdown:
    """Usage and amount of one SKU, app, region or organization."""

    key: str = strawberry.field(
        description="SKU, app, region or organization; empty for usage reported without one. Grouped by SKU, each adjustment has its own entry with the key `adj:` and its id.",
    )
    description: str | None = strawberry.field(
        description="Name of the SKU on the invoice; null when the entry combines several."
    )
    quantity: Decimal = strawberry.field(
        description="Quantity used. An entry that combines different units (an app, for example) adds unlike quantities; compare `amount` there.",
    )
    unit: str | None = strawberry.field(
        description="Unit of `quantity`; null when the entry combines different units."
    )
    amount: Money = strawberry.field(description="Amount charged for this usage.")
    price: strawberry.Private[str | None]

    @strawberry.field
    def stripe_dashboard_url(self, info: Info) -> str | None:
        """Support only: link to the SKU's price in Stripe's Dashboard; null when not grouped by SKU."""
        return dashboard_url(info.context, "prices", self.price) if self.price else None

    @classmethod
    def from_usage(cls, row: UsageRow, price: str | None = None) -> "UsageBreakdown":
        """Convert a *row*; *price* is the Stripe price id of a single line."""
        return cls(
            key=row.key,
            price=price,
            description=_description(row),
            quantity=row.quantity,
            unit=row.unit,
            amount=Money.from_money(row.amount),
        )


@graphql_type
class BillingPeriod:
    """Usage and amounts of one calendar month (UTC), up to the last recorded delta.

    Always: `inStripe` + `claimed` + `pending` = `total`.
    """

    snapshot: strawberry.Private[Snapshot]
    prices: strawberry.Private[Mapping[str, Price]]
    start: datetime = strawberry.field(description="Start of the month in UTC, inclusive.")
    end: datetime = strawberry.field(
        description="End of the month in UTC, exclusive: the start of the next month."
    )
    state: BillingPeriodState = strawberry.field(description="Lifecycle state of the month.")
    in_stripe: Money = strawberry.field(
        description="Amount that Stripe has confirmed on the draft invoice."
    )
    claimed: Money = strawberry.field(
        description="Amount that a running sync is writing to Stripe."
    )
    pending: Money = strawberry.field(description="Amount that has not been sent to Stripe yet.")
    total: Money = strawberry.field(description="Total amount of the month so far.")
    as_of: datetime = strawberry.field(
        description="Time of the ledger snapshot from which these amounts are computed."
    )

    @strawberry.field
    async def invoice(self, info: Info) -> Invoice | None:
        """Stripe invoice of the month; null until the first sync creates its draft."""
        invoice = self.snapshot.invoice
        return await Invoice.find(info.context, invoice) if invoice else None

    @strawberry.field
    async def usage(
        self,
        info: Info,
        by: Annotated[
            UsageDimension | None, strawberry.argument(description="Dimension to group usage by.")
        ] = UsageDimension.SKU,
        sku: Annotated[
            str | None,
            strawberry.argument(
                description="Return only this SKU: its usage, including usage carried forward from another month, and its adjustments."
            ),
        ] = None,
    ) -> list[UsageBreakdown]:
        """Usage by SKU, app, region or organization, highest amount first."""
        snapshot = self._limited_to_sku(sku)
        if by is None or by is UsageDimension.SKU:
            rows = usage_by_sku(snapshot, self.prices)
            return [
                UsageBreakdown.from_usage(row, snapshot.prices[LineKey(row.key)]) for row in rows
            ]
        groups = await self._grouped_quantities(info, DIMENSIONS[by], snapshot.totals)
        return [
            UsageBreakdown.from_usage(row) for row in usage_by_group(groups, snapshot, self.prices)
        ]

    def _limited_to_sku(self, sku: str | None) -> Snapshot:
        """The snapshot, limited to the lines of *sku* if one is given."""
        if not sku:
            return self.snapshot
        whole, prices = self.snapshot, self.prices
        lines = {key: n for key, n in whole.totals.items() if sku_of(key, whole, prices) == sku}
        return replace(whole, totals=lines)

    async def _grouped_quantities(
        self, info: Info, by: Dimension, lines: Container[LineKey]
    ) -> dict[str, dict[str, Decimal]]:
        """Quantities of *lines* by dimension value and line.

        Usage of a line first recorded after the snapshot is left out, because the total lacks it as well.
        """
        key = (self.snapshot.customer, self.snapshot.period, by)
        groups = await info.context.loaders.breakdown.load(key)
        quantities: dict[str, dict[str, Decimal]] = {
            value: {line: quantity for line, quantity in used.items() if line in lines}
            for value, used in groups.items()
        }
        return {value: used for value, used in quantities.items() if used}

    @classmethod
    async def find(
        cls, context: Context, customer: CustomerId, month: Period, currency: str
    ) -> "BillingPeriod | None":
        """One *month* of *customer*; None when the ledger has none. *currency*: see `from_snapshot`."""
        snapshot = await context.loaders.period.load((customer, month))
        current = Period.containing(to_datetime(snapshot.now_ms))
        if snapshot.version == EMPTY_VERSION and month != current:
            return None
        return cls.from_snapshot(snapshot, await context.loaders.prices(snapshot), currency)

    @classmethod
    def from_snapshot(
        cls, snapshot: Snapshot, prices: Mapping[str, Price], currency: str
    ) -> "BillingPeriod":
        """Compute the amounts of *snapshot*; *prices* by id, every one that it pins.

        *currency* applies to a customer without usage, for whom the ledger has no currency.
        """
        if not snapshot.currency:
            snapshot = replace(snapshot, currency=currency)
        amounts = compute_amounts(snapshot, prices)
        return cls(
            snapshot=snapshot,
            prices=prices,
            start=snapshot.period.start,
            end=snapshot.period.end,
            state=_state(snapshot),
            in_stripe=Money.from_money(amounts.in_stripe),
            claimed=Money.from_money(amounts.claimed),
            pending=Money.from_money(amounts.pending),
            total=Money.from_money(amounts.total),
            as_of=to_datetime(snapshot.now_ms),
        )


def _description(row: UsageRow) -> str | None:
    """Name on the invoice, marked for an adjustment and for usage carried forward."""
    sku, carried, origin = row.key.partition("~")
    if row.description is None or not (carried or sku.startswith("adj:")):
        return row.description
    return f"{row.description} ({f'usage of {origin}' if carried else 'correction'})"


DIMENSIONS: Mapping[UsageDimension, Dimension] = {
    UsageDimension.APP: "app",
    UsageDimension.REGION: "region",
    UsageDimension.ORGANIZATION: "organization",
}
STATES = {
    billing.invoicing.snapshot.PeriodState.OPEN: BillingPeriodState.OPEN,
    billing.invoicing.snapshot.PeriodState.CLOSING: BillingPeriodState.CLOSING,
    billing.invoicing.snapshot.PeriodState.SEALED: BillingPeriodState.CLOSED,
}


def _state(snapshot: Snapshot) -> BillingPeriodState:
    return BillingPeriodState.HELD if snapshot.hold else STATES[snapshot.state]
