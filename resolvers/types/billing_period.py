"""A month of usage: what is owed for it, and how much of that Stripe knows."""

from collections.abc import Container, Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated

import strawberry

import billing.invoicing.snapshot
from billing.invoicing.amounts import Usage, bill, usage_by, usage_by_sku
from billing.invoicing.snapshot import Snapshot
from billing.ledger.queries import Dimension
from billing.usage import CustomerId, LineKey, Period, Price
from resolvers.context import Context, Info
from resolvers.types.invoice import Invoice
from resolvers.types.skus import sku_of
from resolvers.types.stripe_links import dashboard
from resolvers.types.timestamps import moment
from schema.decorators import graphql_enum, graphql_type
from schema.types.money import Money

UNTOUCHED = "0:0"
"""The version of a month in which nothing was ever counted, or that was forgotten."""


@graphql_enum(
    OPEN="Usage is being counted, also late usage until an hour after the month's end.",
    CLOSING="The month was cut: Stripe is told the rest, then the invoice is finalized.",
    CLOSED="Its invoice is final; later usage goes on the next one.",
    HELD="Support has put billing on hold: usage is counted, Stripe told nothing, nothing finalized.",
)
class PeriodState(StrEnum):
    """Where a month stands."""

    OPEN = "OPEN"
    CLOSING = "CLOSING"
    CLOSED = "CLOSED"
    HELD = "HELD"


@graphql_enum(
    SKU="One entry for each thing that is sold.",
    APP="One entry for each Fly app.",
    REGION="One entry for each region.",
    ORGANIZATION="One entry for each linked organization.",
)
class UsageDimension(StrEnum):
    """What usage is added up by."""

    SKU = "SKU"
    APP = "APP"
    REGION = "REGION"
    ORGANIZATION = "ORGANIZATION"


@graphql_type
class UsageBreakdown:
    """What one SKU, app, region or organization has used, and what that comes to."""

    key: str = strawberry.field(
        description="The SKU, app, region or organization; empty for usage reported without one. "
        "By SKU, a correction stands by itself under `adj:` and its id.",
    )
    description: str | None = strawberry.field(description="What a SKU is called on the bill.")
    quantity: Decimal = strawberry.field(
        description="How much. Across different units (by app, say) this is a sum of unlike things; go by `amount`.",
    )
    unit: str | None = strawberry.field(
        description="What `quantity` counts; null where units differ."
    )
    amount: Money = strawberry.field(description="What it comes to.")
    price: strawberry.Private[str | None]

    @strawberry.field
    def stripe_dashboard_url(self, info: Info) -> str | None:
        """Support only: the price that a SKU is sold at, in Stripe's Dashboard; null by anything else."""
        return dashboard(info.context, "prices", self.price) if self.price else None

    @classmethod
    def of(cls, row: Usage, price: str | None = None) -> "UsageBreakdown":
        """*row* as clients see it, counted at *price* if it is one line."""
        return cls(
            key=row.key,
            price=price,
            description=_described(row),
            quantity=row.quantity,
            unit=row.unit,
            amount=Money.of(row.amount),
        )


@graphql_type
class BillingPeriod:
    """A month, to the last recorded delta. `inStripe` + `claimed` + `pending` = `total`, always."""

    snapshot: strawberry.Private[Snapshot]
    prices: strawberry.Private[Mapping[str, Price]]
    start: datetime = strawberry.field(description="First moment of the month, UTC.")
    end: datetime = strawberry.field(description="First moment of the next month, UTC.")
    state: PeriodState = strawberry.field(description="Where the month stands.")
    in_stripe: Money = strawberry.field(description="What Stripe has confirmed on the draft.")
    claimed: Money = strawberry.field(description="What a sync is telling Stripe right now.")
    pending: Money = strawberry.field(description="What Stripe has not been told yet.")
    total: Money = strawberry.field(description="What the month comes to so far.")
    as_of: datetime = strawberry.field(description="The moment that all these numbers are of.")

    @strawberry.field
    async def invoice(self, info: Info) -> Invoice | None:
        """The Stripe draft, once there is one."""
        invoice = self.snapshot.invoice
        return await Invoice.find(info.context, invoice) if invoice else None

    @strawberry.field
    async def usage(
        self,
        info: Info,
        by: Annotated[
            UsageDimension | None, strawberry.argument(description="What to add it up by.")
        ] = UsageDimension.SKU,
        sku: Annotated[
            str | None,
            strawberry.argument(
                description="Only this SKU: its usage, also of other months, and its corrections."
            ),
        ] = None,
    ) -> list[UsageBreakdown]:
        """What it is made of, dearest first."""
        snapshot = self._only(sku)
        if by is None or by is UsageDimension.SKU:
            rows = usage_by_sku(snapshot, self.prices)
            return [UsageBreakdown.of(row, snapshot.prices[LineKey(row.key)]) for row in rows]
        groups = await self._groups(info, DIMENSIONS[by], snapshot.totals)
        return [UsageBreakdown.of(row) for row in usage_by(groups, snapshot, self.prices)]

    def _only(self, sku: str | None) -> Snapshot:
        """The snapshot with the lines of *sku* only, if one is given."""
        if not sku:
            return self.snapshot
        whole, prices = self.snapshot, self.prices
        lines = {key: n for key, n in whole.totals.items() if sku_of(key, whole, prices) == sku}
        return replace(whole, totals=lines)

    async def _groups(
        self, info: Info, by: Dimension, lines: Container[LineKey]
    ) -> dict[str, dict[str, Decimal]]:
        """Quantities of *lines* by *by* and line; one first used after the snapshot is not in its total either."""
        key = (self.snapshot.customer, self.snapshot.period, by)
        groups = await info.context.loaders.breakdown.load(key)
        found: dict[str, dict[str, Decimal]] = {
            value: {line: quantity for line, quantity in used.items() if line in lines}
            for value, used in groups.items()
        }
        return {value: used for value, used in found.items() if used}

    @classmethod
    async def find(
        cls, context: Context, customer: CustomerId, month: Period, currency: str
    ) -> "BillingPeriod | None":
        """*customer*'s *month*; None when the ledger has none (any more). For *currency* see `of`."""
        snapshot = await context.loaders.period.load((customer, month))
        current = Period.containing(moment(snapshot.now_ms))
        if snapshot.version == UNTOUCHED and month != current:
            return None
        return cls.of(snapshot, await context.loaders.prices(snapshot), currency)

    @classmethod
    def of(cls, snapshot: Snapshot, prices: Mapping[str, Price], currency: str) -> "BillingPeriod":
        """The month that *snapshot* is of, in numbers; *prices* by id, every one that it pins.

        *currency* is for a customer whose usage never came, of whom the ledger knows none.
        """
        if not snapshot.currency:
            snapshot = replace(snapshot, currency=currency)
        amounts = bill(snapshot, prices)
        return cls(
            snapshot=snapshot,
            prices=prices,
            start=snapshot.period.start,
            end=snapshot.period.end,
            state=_state(snapshot),
            in_stripe=Money.of(amounts.in_stripe),
            claimed=Money.of(amounts.claimed),
            pending=Money.of(amounts.pending),
            total=Money.of(amounts.total),
            as_of=moment(snapshot.now_ms),
        )


def _described(row: Usage) -> str | None:
    """What the bill says; a correction and usage of another month say that they are."""
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
    billing.invoicing.snapshot.PeriodState.OPEN: PeriodState.OPEN,
    billing.invoicing.snapshot.PeriodState.CLOSING: PeriodState.CLOSING,
    billing.invoicing.snapshot.PeriodState.SEALED: PeriodState.CLOSED,
}


def _state(snapshot: Snapshot) -> PeriodState:
    return PeriodState.HELD if snapshot.hold else STATES[snapshot.state]
