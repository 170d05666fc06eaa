"""Inputs of the mutations.

Quantities and timestamps stay as the client sent them; `billing.usage_validation` parses them, so that one
malformed value does not fail the whole batch.
"""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum

import strawberry

from billing.usage_validation import RawDelta
from schema.decorators import graphql_enum, graphql_input

CUSTOMER_ID = (
    "Customer id, `cus_…`, or the id of an object that belongs to the customer, such as `in_…`."
)
SKU = "SKU to correct: the `lookup_key` of an active Stripe price."
QUANTITY = 'Quantity to add, in the unit of the price, as a decimal; negative to subtract: "-3".'
REASON = (
    "Reason for the action, 1 to 1,000 printable characters; the audit log stores it with the `sub` claim "
    "of the caller's token."
)
MONTH = (
    'Month to correct, in UTC, such as "2026-10"; default: the current month. A month that has ended can be '
    "corrected until finalization of its invoice begins (PERIOD_CLOSED)."
)
IDEMPOTENCY_KEY = (
    "Client-generated key; reuse it on retries. A late retry does not override a later action. "
    "IDEMPOTENCY_CONFLICT if the key was used for a different action."
)


@graphql_enum(
    PAYMENT_METHOD_UPDATE="Opens the page for updating the payment method.",
    CUSTOMER_UPDATE="Opens the page for updating the billing address and tax ids.",
)
class PortalFlow(StrEnum):
    """A single task in Stripe's Customer Portal; the customer returns after it."""

    PAYMENT_METHOD_UPDATE = "payment_method_update"
    CUSTOMER_UPDATE = "customer_update"


@graphql_input
class SyncBillingInput:
    """Input of `syncBilling` and `previewSync`."""

    customer_id: strawberry.ID = strawberry.field(description=CUSTOMER_ID)


@graphql_input
class CorrectionInput:
    """A correction to preview; the fields have the same meaning as in `AdjustUsageInput`."""

    sku: str = strawberry.field(description=SKU)
    quantity: object = strawberry.field(
        graphql_type=Decimal,
        description=QUANTITY,
    )
    month: str | None = strawberry.field(default=None, description=MONTH)


@graphql_input
class CreatePortalSessionInput:
    """Input of `createPortalSession`: the customer, the return URL and an optional task."""

    customer_id: strawberry.ID = strawberry.field(description=CUSTOMER_ID)
    return_url: str = strawberry.field(
        description="URL of the portal's return link, at most 2,000 ASCII characters. In production its origin is one of "
        "`BILLING_ALLOWED_ORIGINS`; while developing it is https, or http on this machine.",
    )
    flow: PortalFlow | None = strawberry.field(
        default=None, description="A single task to open; default: the portal's home page."
    )
    reason: str | None = strawberry.field(
        default=None, description="Reason of Support for the audit log; customers need none."
    )


@graphql_input
class UsageDeltaInput:
    """A usage delta: one signed change of a customer's usage of one SKU."""

    id: strawberry.ID = strawberry.field(
        description="Client-generated id, unique for the customer; reuse it on retries. Each id is counted once. "
        "IDEMPOTENCY_CONFLICT if it was sent with other content.",
    )
    customer_id: strawberry.ID = strawberry.field(description="Stripe's customer id, `cus_…`.")
    sku: str = strawberry.field(description="SKU used: the `lookup_key` of an active Stripe price.")
    quantity: object = strawberry.field(
        graphql_type=Decimal,
        description="Signed decimal in the unit of the price, at most 15 digits before the point and 12 after it.",
    )
    occurred_at: object = strawberry.field(
        graphql_type=datetime,
        description="Time of the usage; decides the month that it is billed in.",
    )
    app: str | None = strawberry.field(
        default=None, description="Name of the Fly app, for the usage breakdown."
    )
    region: str | None = strawberry.field(
        default=None, description="Code of the Fly region, for the usage breakdown."
    )
    organization: str | None = strawberry.field(
        default=None, description="Slug of the linked organization, for the usage breakdown."
    )

    def to_raw(self) -> RawDelta:
        """The delta for `billing.usage_validation`, which parses it."""
        return RawDelta(
            id=self.id,
            customer_id=self.customer_id,
            sku=self.sku,
            quantity=self.quantity,
            occurred_at=self.occurred_at,
            app=self.app,
            region=self.region,
            organization=self.organization,
        )


@graphql_input
class RecordUsageInput:
    """Input of `recordUsage`: a batch of usage deltas."""

    deltas: list[UsageDeltaInput] = strawberry.field(
        description="The usage deltas, at most 10,000. Each is accepted or rejected on its own.",
    )


@graphql_input
class AdjustUsageInput:
    """Input of `adjustUsage`: a correction of one month's usage."""

    customer_id: strawberry.ID = strawberry.field(description=CUSTOMER_ID)
    sku: str = strawberry.field(description=SKU)
    quantity: object = strawberry.field(
        graphql_type=Decimal,
        description=QUANTITY,
    )
    reason: str = strawberry.field(description=REASON)
    idempotency_key: str = strawberry.field(
        description="Client-generated key, 1 to 255 printable characters; reuse it on retries. The adjustment is applied "
        "once. IDEMPOTENCY_CONFLICT if the key was used for a different adjustment.",
    )
    month: str | None = strawberry.field(default=None, description=MONTH)


@graphql_input
class HoldBillingInput:
    """Input of `holdBilling`: the customer and the reason."""

    customer_id: strawberry.ID = strawberry.field(description=CUSTOMER_ID)
    reason: str = strawberry.field(description=REASON)
    idempotency_key: str | None = strawberry.field(default=None, description=IDEMPOTENCY_KEY)


@graphql_input
class ReleaseBillingInput:
    """Input of `releaseBilling`: the customer and the reason."""

    customer_id: strawberry.ID = strawberry.field(description=CUSTOMER_ID)
    reason: str = strawberry.field(description=REASON)
    idempotency_key: str | None = strawberry.field(default=None, description=IDEMPOTENCY_KEY)


@graphql_input
class FinalizeInvoiceInput:
    """Input of `finalizeInvoice`: the draft invoice and the reason."""

    invoice_id: strawberry.ID = strawberry.field(description="Id of the draft invoice, `in_…`.")
    reason: str = strawberry.field(description=REASON)


@graphql_input
class RetrySyncInput:
    """Input of `retrySync`: the sync and the reason."""

    sync_id: strawberry.ID = strawberry.field(description="Id of the sync, `sync_…`.")
    reason: str | None = strawberry.field(default=None, description=REASON)


@graphql_input
class RepairDriftInput:
    """Input of `repairDrift`: the customer and the reason."""

    customer_id: strawberry.ID = strawberry.field(description=CUSTOMER_ID)
    reason: str = strawberry.field(description=REASON)


@graphql_input
class SweepWebhookEventsInput:
    """Input of `sweepWebhookEvents`: the reason for the sweep."""

    reason: str | None = strawberry.field(default=None, description=REASON)


@graphql_input
class ReplayWebhookEventInput:
    """Input of `replayWebhookEvent`: the event and the reason."""

    event_id: strawberry.ID = strawberry.field(description="Id of the Stripe event, `evt_…`.")
    reason: str | None = strawberry.field(default=None, description=REASON)
