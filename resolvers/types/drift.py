"""Where Stripe and the ledger differ."""

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from http import HTTPStatus

import strawberry

import billing.invoicing.amounts
from billing.budget import Lane
from billing.errors import StripeRejected
from billing.invoicing.amounts import drift
from billing.invoicing.remote_invoice import SeenInvoice, lines_are_complete
from billing.invoicing.snapshot import PeriodState, Snapshot
from billing.services import Services
from billing.usage import CustomerId
from resolvers.context import Info
from resolvers.types.skus import sku_of
from resolvers.types.stripe_links import dashboard
from schema.decorators import graphql_enum, graphql_type
from schema.types.money import Money


@graphql_enum(
    MISSING="We count it, Stripe does not have it.",
    EXTRA="Stripe has a line that we do not count. One that a person put there (`sku` null) stays.",
    QUANTITY="Stripe has another quantity.",
    PRICE="Stripe counts it by another price.",
)
class DriftKind(StrEnum):
    """How a line differs."""

    MISSING = "MISSING"
    EXTRA = "EXTRA"
    QUANTITY = "QUANTITY"
    PRICE = "PRICE"


@graphql_type
class DriftLine:
    """One line on which Stripe and the ledger differ."""

    sku: str | None = strawberry.field(description="The SKU that it bills.")
    line_id: strawberry.ID | None = strawberry.field(
        description="Stripe's line, `il_…`, if it has one."
    )
    kind: DriftKind = strawberry.field(description="How they differ.")
    expected: Decimal | None = strawberry.field(description="The quantity that we count.")
    found: Decimal | None = strawberry.field(description="The quantity that Stripe has.")
    amount: Money = strawberry.field(
        description="What Stripe bills too much; negative when it bills too little.",
    )
    invoice: strawberry.Private[str | None]

    @strawberry.field
    def stripe_dashboard_url(self, info: Info) -> str | None:
        """The draft on which they differ, in Stripe's Dashboard; null while there is none."""
        return dashboard(info.context, "invoices", self.invoice) if self.invoice else None


@graphql_type
class DriftReport:
    """The ledger against Stripe, line by line. Empty `lines` means that they agree."""

    lines: list[DriftLine] = strawberry.field(
        description="The lines that differ; `repairDrift` settles them."
    )
    checked_at: datetime = strawberry.field(description="When Stripe was asked.")
    conflicting_deltas: int = strawberry.field(
        description="How many reports ever came under an id that was counted with other content; the "
        "first of each stands, the others were refused."
    )

    @classmethod
    async def of(cls, services: Services, customer: CustomerId) -> "DriftReport":
        """Ask Stripe now how *customer*'s drafts differ from what it was told."""
        checked_at = datetime.now(UTC)
        lines: list[DriftLine] = []
        for snapshot in await unsealed(services, customer):
            prices = await services.catalogue.by_id(snapshot.prices.values())
            lines += [
                DriftLine(
                    sku=line.key and sku_of(line.key, snapshot, prices),
                    line_id=strawberry.ID(line.line_id) if line.line_id else None,
                    kind=DriftKind(line.kind),
                    expected=line.expected,
                    found=line.found,
                    amount=Money.of(line.amount),
                    invoice=snapshot.invoice,
                )
                for line in await drifted(services, snapshot)
            ]
        [current] = await services.ledger.currents([customer])
        return cls(lines=lines, checked_at=checked_at, conflicting_deltas=current.conflicts)


async def unsealed(services: Services, customer: CustomerId) -> list[Snapshot]:
    """The months whose bills can still change: the current one, and those that are being closed."""
    periods = await services.ledger.periods(customer)
    found = await asyncio.gather(*(services.ledger.peek(customer, each) for each in periods))
    return [each for each in found if each.state is not PeriodState.SEALED]


async def drifted(
    services: Services, snapshot: Snapshot
) -> list[billing.invoicing.amounts.DriftLine]:
    """The lines that differ; reads the invoice from Stripe, past the cache.

    What a sync is writing right now stands neither as it was nor as it will be.
    """
    busy = {line for op in snapshot.flight.ops for line in op.lines} if snapshot.flight else set()
    found = drift(snapshot, await _seen(services, snapshot.invoice))
    return [line for line in found if line.key not in busy]


async def _seen(services: Services, invoice: str | None) -> SeenInvoice | None:
    if invoice is None:
        return None
    path = f"/v1/invoices/{invoice}"
    try:
        body = await services.stripe.read(path, lane=Lane.SUPPORT)
    except StripeRejected as refusal:
        if refusal.status == HTTPStatus.NOT_FOUND:
            return None
        raise
    if lines_are_complete(body):
        return SeenInvoice.from_stripe(body)
    lines = await services.stripe.pages(f"{path}/lines", {}, lane=Lane.SUPPORT)
    return SeenInvoice.from_stripe(body, lines)
