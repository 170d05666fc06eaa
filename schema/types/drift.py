"""The drift report type: differences between Stripe's drafts and the ledger."""

from datetime import datetime
from decimal import Decimal

import strawberry

import billing.invoicing.amounts
from billing.invoicing.amounts import DriftKind
from resolvers.billing_periods import PricedSnapshot
from resolvers.drift import DriftComparison
from schema.decorators import graphql_enum, graphql_type
from schema.info import Info
from schema.stripe_links import dashboard_url
from schema.types.money import Money

graphql_enum(
    MISSING="The gateway has written the line, Stripe does not have it.",
    EXTRA="Stripe has a line that the gateway has not written. One added by a person (`sku` null) is left alone.",
    QUANTITY="Stripe has a different quantity.",
    PRICE="Stripe has a different price or amount.",
)(DriftKind)


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

    @classmethod
    def from_record(
        cls, line: billing.invoicing.amounts.DriftLine, period: PricedSnapshot
    ) -> "DriftLine":
        """Convert a *line* of a *period*."""
        return cls(
            sku=line.key and period.sku_of(line.key),
            line_id=strawberry.ID(line.line_id) if line.line_id else None,
            kind=line.kind,
            expected=line.expected,
            found=line.found,
            amount=Money.from_money(line.amount),
            invoice=period.snapshot.invoice,
        )


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
    def from_record(cls, comparison: DriftComparison) -> "DriftReport":
        """Convert a *comparison*."""
        return cls(
            lines=[DriftLine.from_record(*line) for line in comparison.lines],
            checked_at=comparison.checked_at,
            conflicting_deltas=comparison.conflicting_deltas,
        )
