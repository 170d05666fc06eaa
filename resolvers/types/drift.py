"""The drift report: differences between Stripe's drafts and the ledger."""

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from http import HTTPStatus

import strawberry

import billing.invoicing.amounts
from billing.budget import Lane
from billing.errors import StripeRejected
from billing.invoicing.amounts import find_drift
from billing.invoicing.remote_invoice import RemoteInvoice, has_all_lines
from billing.invoicing.snapshot import PeriodState, Snapshot
from billing.services import Services
from billing.usage import CustomerId
from resolvers.context import Info
from resolvers.types.skus import sku_of
from resolvers.types.stripe_links import dashboard_url
from schema.decorators import graphql_enum, graphql_type
from schema.types.money import Money


@graphql_enum(
    MISSING="The gateway has written the line, Stripe does not have it.",
    EXTRA="Stripe has a line that the gateway has not written. One added by a person (`sku` null) is left alone.",
    QUANTITY="Stripe has a different quantity.",
    PRICE="Stripe has a different price or amount.",
)
class DriftKind(StrEnum):
    """Kind of difference between Stripe and the ledger."""

    MISSING = "MISSING"
    EXTRA = "EXTRA"
    QUANTITY = "QUANTITY"
    PRICE = "PRICE"


@graphql_type
class DriftLine:
    """An invoice line on which Stripe and the ledger differ."""

    sku: str | None = strawberry.field(
        description="SKU that the line bills; null for a line added by a person."
    )
    line_id: strawberry.ID | None = strawberry.field(
        description="Stripe line id, `il_…`; null when Stripe does not have the line."
    )
    kind: DriftKind = strawberry.field(description="Kind of the difference.")
    expected: Decimal | None = strawberry.field(
        description="Quantity that the last sync wrote; null for a line that only Stripe has."
    )
    found: Decimal | None = strawberry.field(
        description="Quantity at Stripe; null when Stripe does not have the line."
    )
    amount: Money = strawberry.field(
        description="Amount that Stripe bills in excess; negative when it bills too little.",
    )
    invoice: strawberry.Private[str | None]

    @strawberry.field
    def stripe_dashboard_url(self, info: Info) -> str | None:
        """Link to the draft invoice in Stripe's Dashboard; null while there is none."""
        return dashboard_url(info.context, "invoices", self.invoice) if self.invoice else None


@graphql_type
class DriftReport:
    """A comparison of Stripe's drafts with the ledger, line by line. Empty `lines` means that they agree."""

    lines: list[DriftLine] = strawberry.field(
        description="Lines that differ; `repairDrift` corrects them."
    )
    checked_at: datetime = strawberry.field(description="Time at which Stripe was read.")
    conflicting_deltas: int = strawberry.field(
        description="Number of usage reports rejected so far because their id had been counted with other content."
    )

    @classmethod
    async def compare(cls, services: Services, customer: CustomerId) -> "DriftReport":
        """Read *customer*'s drafts from Stripe and compare them with the ledger."""
        checked_at = datetime.now(UTC)
        lines: list[DriftLine] = []
        for snapshot in await unsealed_snapshots(services, customer):
            prices = await services.price_catalog.by_id(snapshot.prices.values())
            lines += [
                DriftLine(
                    sku=line.key and sku_of(line.key, snapshot, prices),
                    line_id=strawberry.ID(line.line_id) if line.line_id else None,
                    kind=DriftKind(line.kind),
                    expected=line.expected,
                    found=line.found,
                    amount=Money.from_money(line.amount),
                    invoice=snapshot.invoice,
                )
                for line in await drift_lines(services, snapshot)
            ]
        [current] = await services.ledger.current_snapshots([customer])
        return cls(lines=lines, checked_at=checked_at, conflicting_deltas=current.conflicts)


async def unsealed_snapshots(services: Services, customer: CustomerId) -> list[Snapshot]:
    """Snapshots of the months whose bills can still change: the current one and those being closed."""
    periods = await services.ledger.list_periods(customer)
    snapshots = await asyncio.gather(
        *(services.ledger.snapshot(customer, period) for period in periods)
    )
    return [snapshot for snapshot in snapshots if snapshot.state is not PeriodState.SEALED]


async def drift_lines(
    services: Services, snapshot: Snapshot
) -> list[billing.invoicing.amounts.DriftLine]:
    """The lines that differ; reads the invoice from Stripe, past the cache.

    Lines that a running sync is writing are left out: their state is not settled yet.
    """
    in_flight = (
        {line for op in snapshot.batch.requests for line in op.lines} if snapshot.batch else set()
    )
    differences = find_drift(snapshot, await _fetch_remote_invoice(services, snapshot.invoice))
    return [line for line in differences if line.key not in in_flight]


async def _fetch_remote_invoice(services: Services, invoice: str | None) -> RemoteInvoice | None:
    if invoice is None:
        return None
    path = f"/v1/invoices/{invoice}"
    try:
        body = await services.stripe.read(path, lane=Lane.SUPPORT)
    except StripeRejected as refusal:
        if refusal.status == HTTPStatus.NOT_FOUND:
            return None
        raise
    if has_all_lines(body):
        return RemoteInvoice.from_stripe(body)
    lines = await services.stripe.list_all(f"{path}/lines", {}, lane=Lane.SUPPORT)
    return RemoteInvoice.from_stripe(body, lines)
