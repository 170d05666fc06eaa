"""The billing period type: one month's usage, its amounts, and how much of them Stripe has."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated

import strawberry

import billing.invoicing.snapshot
from billing.invoicing.amounts import UsageRow, compute_amounts
from billing.invoicing.snapshot import Snapshot
from billing.ledger.usage import Dimension
from billing.usage import LineKey
from resolvers.billing_periods import MAX_ROWS, PricedSnapshot, usage_rows
from resolvers.bills import estimate_bill
from resolvers.loop_slots import loop_slots
from resolvers.spend import SpendRecord
from schema.connections import validate_page_size
from schema.decorators import graphql_enum, graphql_type
from schema.info import Info
from schema.scalars import to_datetime
from schema.stripe_links import dashboard_url
from schema.types.bill import Bill
from schema.types.invoice import Invoice
from schema.types.money import Money


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
        description="SKU, app, region or organization; empty for usage reported without one. Grouped by SKU, each adjustment has its own entry with the key `adj:` and its id. The entry that combines all beyond `first` has the key `rest:` and their number.",
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
    unit_price: Money | None = strawberry.field(
        description="Price of one unit; null when the entry combines different prices."
    )
    corrections: Money | None = strawberry.field(
        description="Part of `amount` that corrections by Support make up; null when there is none."
    )
    price: strawberry.Private[str | None]

    @strawberry.field
    def stripe_dashboard_url(self, info: Info) -> str | None:
        """Support only: link to the SKU's price in Stripe's Dashboard; null when not grouped by SKU."""
        return dashboard_url(info.context, "prices", self.price) if self.price else None

    @classmethod
    def from_row(cls, row: UsageRow, price: str | None = None) -> "UsageBreakdown":
        """Convert a *row*; *price* is the Stripe price id of a single line."""
        return cls(
            key=row.key,
            price=price,
            description=_description(row),
            quantity=row.quantity,
            unit=row.unit,
            amount=Money.from_money(row.amount),
            unit_price=Money.from_money(row.unit_price) if row.unit_price else None,
            corrections=Money.from_money(row.corrections) if row.corrections else None,
        )


@graphql_type
class MonthlySpend:
    """Amount billed for one month in one currency."""

    month: str = strawberry.field(description="Billed month in the form `2026-11`.")
    total: Money = strawberry.field(description="Sum of the month's finalized invoices.")
    invoices: int = strawberry.field(description="Number of finalized invoices in `total`.")

    @classmethod
    def from_record(cls, spend: SpendRecord) -> "MonthlySpend":
        """Convert the *spend* of a month."""
        return cls(
            month=str(spend.month), total=Money.from_money(spend.total), invoices=spend.invoices
        )


@graphql_type
class BillingPeriod:
    """Usage and amounts of one calendar month (UTC), up to the last recorded delta.

    Always: `inStripe` + `claimed` + `pending` = `total`.
    """

    record: strawberry.Private[PricedSnapshot]
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
        invoice = self.record.snapshot.invoice
        loaded = await info.context.loaders.invoice(invoice) if invoice else None
        return Invoice.from_record(loaded) if loaded else None

    @strawberry.field
    async def estimate(self, info: Info) -> Bill | None:
        """Amounts from the usage to what the customer will pay if the month ended now, in rows that add up.

        Null, with an error, when Stripe cannot be read. `total` is the usage alone.
        """
        return Bill.from_record(await estimate_bill(info.context, self.record))

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
        first: Annotated[
            int | None,
            strawberry.argument(
                description="Maximum number of entries, 0 to 100; one more combines all others, so that the amounts add up."
            ),
        ] = MAX_ROWS,
    ) -> list[UsageBreakdown]:
        """Usage by SKU, app, region or organization, largest amount first; a credit counts by its size."""
        dimension = DIMENSIONS.get(by) if by else None
        size = validate_page_size(first, MAX_ROWS)
        rows = await usage_rows(info.context, self.record, dimension, sku, size)
        await loop_slots.take(len(rows))
        prices = {} if dimension else self.record.snapshot.prices
        return [UsageBreakdown.from_row(row, prices.get(LineKey(row.key))) for row in rows]

    @classmethod
    def from_record(cls, record: PricedSnapshot) -> "BillingPeriod":
        """Convert a period, and compute its amounts."""
        snapshot = record.snapshot
        amounts = compute_amounts(snapshot, record.prices)
        return cls(
            record=record,
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
    month = origin.partition("~")[0]
    note = "correction" if sku.startswith("adj:") else f"usage of {month}"
    return f"{row.description} ({note})"


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
