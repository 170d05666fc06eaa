"""What mutations answer: the outcome, or the refusals in `errors`; never both."""

from enum import StrEnum

import strawberry

from resolvers.types.adjustment import Adjustment
from resolvers.types.customer import Customer
from resolvers.types.hold import BillingHold
from resolvers.types.invoice import Invoice
from resolvers.types.sync import Sync
from resolvers.types.sync_plan import SyncPlan
from resolvers.types.webhook_event import WebhookEvent
from schema.decorators import graphql_enum, graphql_type
from schema.types.user_error import UserError


def refusals() -> list[UserError]:
    """The `errors` of every payload, described once."""
    field: list[UserError] = strawberry.field(
        default_factory=list, description="Empty when it was done; else why it was not."
    )
    return field


@graphql_type
class SyncBillingPayload:
    """The sync that brings Stripe up to date."""

    sync: Sync | None = strawberry.field(
        default=None, description="Follow it with `sync(id:)` or `billingChanged`."
    )
    coalesced: bool = strawberry.field(
        default=False, description="A sync was already on its way, and this call joined it."
    )
    errors: list[UserError] = refusals()


@graphql_type
class CreatePortalSessionPayload:
    """A way into Stripe's Customer Portal."""

    url: str | None = strawberry.field(
        default=None,
        description="Lets whoever holds it in, and only for a short while: redirect at once, never keep it.",
    )
    sync: Sync | None = strawberry.field(
        default=None,
        description="What was told to Stripe first; if it is not SUCCEEDED, the portal may show less than the panel.",
    )
    errors: list[UserError] = refusals()


@graphql_enum(
    MEMORY="The ledger's server has it in memory; a crash may lose it.",
    FSYNCED="It is on the ledger's disk.",
    REPLICATED="It is on a replica as well.",
)
class Durability(StrEnum):
    """What survives if the ledger's server goes down this moment."""

    MEMORY = "MEMORY"
    FSYNCED = "FSYNCED"
    REPLICATED = "REPLICATED"


@graphql_type
class RejectedDelta:
    """A delta that was not counted."""

    id: strawberry.ID = strawberry.field(description="The reporter's own.")
    error: UserError = strawberry.field(description="Why, and what helps.")


@graphql_type
class RecordUsagePayload:
    """What became of a batch.

    Keep what you sent for a day. When `ledgerEpoch` differs from the last one you saw, the ledger's
    server was replaced or rewound: send the last 15 minutes again; what was counted is not counted twice.
    """

    accepted: int = strawberry.field(default=0, description="Counted now.")
    duplicates: int = strawberry.field(
        default=0, description="Counted before, under the same id: as good as accepted."
    )
    rejected: list[RejectedDelta] = strawberry.field(
        default_factory=list, description="Not counted, each with its reason."
    )
    durability: Durability = strawberry.field(
        default=Durability.MEMORY, description="What this acknowledgement is worth."
    )
    ledger_epoch: str = strawberry.field(
        default="", description="Changes when the ledger's server was replaced or rewound."
    )
    errors: list[UserError] = refusals()


@graphql_type
class AdjustUsagePayload:
    """A correction, and the sync that tells Stripe of it."""

    adjustment: Adjustment | None = strawberry.field(default=None, description="The correction.")
    sync: Sync | None = strawberry.field(
        default=None, description="The sync that puts it on the draft."
    )
    errors: list[UserError] = refusals()


@graphql_type
class HoldBillingPayload:
    """The hold that stands now."""

    hold: BillingHold | None = strawberry.field(default=None, description="The hold.")
    errors: list[UserError] = refusals()


@graphql_type
class ReleaseBillingPayload:
    """The customer whose billing goes on."""

    customer: Customer | None = strawberry.field(default=None, description="The customer.")
    errors: list[UserError] = refusals()


@graphql_type
class FinalizeInvoicePayload:
    """The invoice, on its way to the customer."""

    invoice: Invoice | None = strawberry.field(
        default=None,
        description="As it stands now: still a draft while its last sync runs.",
    )
    errors: list[UserError] = refusals()


@graphql_type
class PreviewSyncPayload:
    """What a sync would do."""

    plan: SyncPlan | None = strawberry.field(default=None, description="The plan.")
    errors: list[UserError] = refusals()


@graphql_type
class RetrySyncPayload:
    """The sync that tries again."""

    sync: Sync | None = strawberry.field(default=None, description="The new attempt.")
    errors: list[UserError] = refusals()


@graphql_type
class RepairDriftPayload:
    """The sync that sets Stripe's lines right."""

    sync: Sync | None = strawberry.field(
        default=None, description="The sync; it reads Stripe before it writes."
    )
    errors: list[UserError] = refusals()


@graphql_type
class SweepWebhookEventsPayload:
    """A worker has been told; what it finds appears in `webhookEvents`."""

    errors: list[UserError] = refusals()


@graphql_type
class ReplayWebhookEventPayload:
    """The event, to be taken up again."""

    event: WebhookEvent | None = strawberry.field(default=None, description="The event.")
    errors: list[UserError] = refusals()
