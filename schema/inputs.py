"""What mutations are given.

Numbers and moments stand here as they were sent; `billing.usage_ingestion` reads them.
"""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum

import strawberry

from schema.decorators import graphql_enum, graphql_input

CUSTOMER = "Stripe's customer id, `cus_…`."
REASON = "Why, in a sentence: it stands in the audit log under your name."
MONTH = 'Whose bill, as "2026-10"; the current month\'s if not given. One that has ended can be corrected until it is final.'
ONCE = "Yours, the same on every retry: a retry that comes late undoes nobody's later decision."


@graphql_enum(
    PAYMENT_METHOD_UPDATE="Straight to changing how the customer pays.",
    CUSTOMER_UPDATE="Straight to the address and tax ids.",
)
class PortalFlow(StrEnum):
    """A page of Stripe's Customer Portal to open at, and to leave it from."""

    PAYMENT_METHOD_UPDATE = "payment_method_update"
    CUSTOMER_UPDATE = "customer_update"


@graphql_input
class SyncBillingInput:
    """Whose bill to bring up to date."""

    customer_id: strawberry.ID = strawberry.field(description=CUSTOMER)


@graphql_input
class CorrectionInput:
    """A correction that might be made."""

    sku: str = strawberry.field(description="The SKU to correct: a Stripe price's `lookup_key`.")
    quantity: object = strawberry.field(
        graphql_type=Decimal,
        description='By how much, in the unit of its price; "-3" takes three off the bill.',
    )
    month: str | None = strawberry.field(default=None, description=MONTH)


@graphql_input
class CreatePortalSessionInput:
    """Whom to send to Stripe's Customer Portal, and where they come back to."""

    customer_id: strawberry.ID = strawberry.field(description=CUSTOMER)
    return_url: str = strawberry.field(
        description="Where the portal's way back leads: https, or http on localhost.",
    )
    flow: PortalFlow | None = strawberry.field(
        default=None, description="A single task instead of the whole portal."
    )


@graphql_input
class UsageDeltaInput:
    """One change of usage, as a metering service saw it."""

    id: strawberry.ID = strawberry.field(
        description="The reporter's own, the same on every retry: what makes it count once.",
    )
    customer_id: strawberry.ID = strawberry.field(description=CUSTOMER)
    sku: str = strawberry.field(description="What was used: a Stripe price's `lookup_key`.")
    quantity: object = strawberry.field(
        graphql_type=Decimal,
        description="Signed and exact, in the unit that the price counts: 15 digits before the point, 12 after.",
    )
    occurred_at: object = strawberry.field(
        graphql_type=datetime,
        description="When it was used; it decides which month it is billed with.",
    )
    app: str | None = strawberry.field(default=None, description="The Fly app that used it.")
    region: str | None = strawberry.field(default=None, description="The region it was used in.")
    organization: str | None = strawberry.field(
        default=None, description="The linked organization that used it."
    )


@graphql_input
class RecordUsageInput:
    """A batch of usage."""

    deltas: list[UsageDeltaInput] = strawberry.field(
        description="Each is answered on its own: a bad one never fails its neighbours.",
    )


@graphql_input
class AdjustUsageInput:
    """A correction of a month's bill."""

    customer_id: strawberry.ID = strawberry.field(description=CUSTOMER)
    sku: str = strawberry.field(description="The SKU to correct: a Stripe price's `lookup_key`.")
    quantity: object = strawberry.field(
        graphql_type=Decimal,
        description='By how much, in the unit of its price; "-3" takes three off the bill.',
    )
    reason: str = strawberry.field(description=REASON)
    idempotency_key: str = strawberry.field(
        description="Yours, the same on every retry: however often it is sent, it corrects once.",
    )
    month: str | None = strawberry.field(default=None, description=MONTH)


@graphql_input
class HoldBillingInput:
    """Whose billing to stop."""

    customer_id: strawberry.ID = strawberry.field(description=CUSTOMER)
    reason: str = strawberry.field(description=REASON)
    idempotency_key: str | None = strawberry.field(default=None, description=ONCE)


@graphql_input
class ReleaseBillingInput:
    """Whose billing to let go on."""

    customer_id: strawberry.ID = strawberry.field(description=CUSTOMER)
    reason: str = strawberry.field(description=REASON)
    idempotency_key: str | None = strawberry.field(default=None, description=ONCE)


@graphql_input
class FinalizeInvoiceInput:
    """Which draft to close and send."""

    invoice_id: strawberry.ID = strawberry.field(description="Stripe's invoice id, `in_…`.")
    reason: str = strawberry.field(description=REASON)


@graphql_input
class RetrySyncInput:
    """Which sync to try again."""

    sync_id: strawberry.ID = strawberry.field(description="Ours: `sync_…`.")
    reason: str | None = strawberry.field(default=None, description=REASON)


@graphql_input
class RepairDriftInput:
    """Whose lines at Stripe to set right."""

    customer_id: strawberry.ID = strawberry.field(description=CUSTOMER)
    reason: str = strawberry.field(description=REASON)


@graphql_input
class SweepWebhookEventsInput:
    """Why Stripe's list of events is gone through now."""

    reason: str | None = strawberry.field(default=None, description=REASON)


@graphql_input
class ReplayWebhookEventInput:
    """Which of Stripe's events to take up again."""

    event_id: strawberry.ID = strawberry.field(description="Stripe's id, `evt_…`.")
    reason: str | None = strawberry.field(default=None, description=REASON)
