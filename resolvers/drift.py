"""Where Stripe and the ledger differ."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum

import strawberry

from schema.types.describing import graphql_enum, graphql_type
from schema.types.money import Money


@graphql_enum(
    MISSING="We count it, Stripe does not have it.",
    EXTRA="Stripe has a line of ours that we do not count.",
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


@graphql_type
class DriftReport:
    """The ledger against Stripe, line by line. Empty `lines` means that they agree."""

    lines: list[DriftLine] = strawberry.field(
        description="The lines that differ; `repairDrift` settles them."
    )
    checked_at: datetime = strawberry.field(description="When Stripe was asked.")
