"""Payloads of the mutations: the result, or the errors in `errors`; never both."""

import functools
import typing
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any, Self

import strawberry

from billing.errors import Refused, Unavailable
from billing.usage_ingestion import UsageReport
from billing.usage_validation import Rejection
from schema.decorators import graphql_enum, graphql_type
from schema.info import Info
from schema.types.adjustment import Adjustment
from schema.types.customer import Customer
from schema.types.hold import BillingHold
from schema.types.invoice import Invoice
from schema.types.sync import Sync
from schema.types.sync_plan import SyncPlan
from schema.types.user_error import UserError
from schema.types.webhook_event import WebhookEvent


def mutation(resolve: Callable[..., Awaitable[Any]]) -> Any:
    """Make *resolve* a mutation: `Refused` and `Unavailable` become the `errors` of its payload.

    The dataloaders are reset first, so the mutation does not see what an earlier one in the document loaded.
    """
    payload = typing.get_type_hints(resolve)["return"]

    @functools.wraps(resolve)
    async def wrapper(self: Any, info: Info, **arguments: Any) -> Any:
        info.context.reset_loaders()
        try:
            return await resolve(self, info, **arguments)
        except (Refused, Unavailable) as error:
            return payload(errors=[UserError.from_error(error)])

    return strawberry.mutation(resolver=wrapper)


def errors_field() -> list[UserError]:
    """The `errors` field of every payload."""
    field: list[UserError] = strawberry.field(
        default_factory=list,
        description="Errors that prevented the mutation; empty if it succeeded.",
    )
    return field


@graphql_type
class SyncBillingPayload:
    """Result of `syncBilling`: the requested sync."""

    sync: Sync | None = strawberry.field(
        default=None,
        description="The sync; follow its status with `sync(id:)` or `billingChanged`. Null if `errors` is not empty.",
    )
    coalesced: bool = strawberry.field(
        default=False,
        description="True if a sync was already waiting, and this call returned that one.",
    )
    errors: list[UserError] = errors_field()


@graphql_type
class CreatePortalSessionPayload:
    """Result of `createPortalSession`: the link to the portal, and the sync that preceded it."""

    url: str | None = strawberry.field(
        default=None,
        description="Short-lived link that needs no login: redirect the customer at once, and do not store or log it.",
    )
    sync: Sync | None = strawberry.field(
        default=None,
        description="The sync before the session. Unless its status is SUCCEEDED, the portal may lack recent usage.",
    )
    errors: list[UserError] = errors_field()


@graphql_enum(
    MEMORY="Stored in the memory of the ledger's server; a crash may lose it.",
    FSYNCED="Written to the disk of the ledger's server.",
    REPLICATED="Written to disk, and received by at least one replica.",
)
class Durability(StrEnum):
    """Durability of recorded usage in the ledger at the time of the answer."""

    MEMORY = "MEMORY"
    FSYNCED = "FSYNCED"
    REPLICATED = "REPLICATED"


@graphql_type
class RejectedDelta:
    """A usage delta that was not counted."""

    id: strawberry.ID = strawberry.field(description="Id of the delta, as the client sent it.")
    error: UserError = strawberry.field(description="Reason for the rejection, and the remedy.")

    @classmethod
    def from_record(cls, rejection: Rejection) -> Self:
        """Convert *rejection*; its path is relative to the delta."""
        return cls(id=strawberry.ID(rejection.id), error=UserError.from_rejection(rejection.error))


@graphql_type
class RecordUsagePayload:
    """Result of `recordUsage`, for the batch as a whole.

    Keep sent deltas for one day. A changed `ledgerEpoch` means that the ledger's server was replaced or
    restored from a backup: send again everything that you sent in the last 15 minutes. Deltas already counted
    are not counted twice.
    """

    accepted: int = strawberry.field(
        default=0, description="Number of deltas counted by this call."
    )
    duplicates: int = strawberry.field(
        default=0,
        description="Number of deltas that an earlier call had counted under the same id; no retry is needed.",
    )
    rejected: list[RejectedDelta] = strawberry.field(
        default_factory=list, description="Deltas that were not counted, each with its error."
    )
    durability: Durability = strawberry.field(
        default=Durability.MEMORY, description="Durability of the accepted deltas in the ledger."
    )
    ledger_epoch: str = strawberry.field(
        default="",
        description="Identifies the ledger's data; changes when its server is replaced or restored from a backup.",
    )
    errors: list[UserError] = errors_field()

    @classmethod
    def from_record(cls, report: UsageReport) -> Self:
        """Convert the *report* of a batch."""
        return cls(
            accepted=report.accepted,
            duplicates=report.duplicates,
            rejected=[RejectedDelta.from_record(rejection) for rejection in report.rejected],
            durability=Durability(report.durability),
            ledger_epoch=report.ledger_epoch,
            errors=[UserError.from_rejection(error) for error in report.errors],
        )


@graphql_type
class AdjustUsagePayload:
    """Result of `adjustUsage`: the adjustment, and the sync that writes it to Stripe."""

    adjustment: Adjustment | None = strawberry.field(
        default=None, description="The adjustment, as recorded in the ledger."
    )
    sync: Sync | None = strawberry.field(
        default=None, description="The sync that writes the adjustment to the draft invoice."
    )
    errors: list[UserError] = errors_field()


@graphql_type
class HoldBillingPayload:
    """Result of `holdBilling`: the active hold."""

    hold: BillingHold | None = strawberry.field(
        default=None,
        description="The active hold; null if a call with the same key placed it and it was released since.",
    )
    errors: list[UserError] = errors_field()


@graphql_type
class ReleaseBillingPayload:
    """Result of `releaseBilling`: the customer, after the release."""

    customer: Customer | None = strawberry.field(
        default=None, description="The customer; `hold` is the hold that is active now, if any."
    )
    errors: list[UserError] = errors_field()


@graphql_type
class FinalizeInvoicePayload:
    """Result of `finalizeInvoice`: the invoice in its current state."""

    invoice: Invoice | None = strawberry.field(
        default=None,
        description="The invoice; still a draft if its last sync took longer than the call waits.",
    )
    errors: list[UserError] = errors_field()


@graphql_type
class PreviewSyncPayload:
    """Result of `previewSync`: the plan of the sync."""

    plan: SyncPlan | None = strawberry.field(
        default=None, description="Writes that the sync would make, and the resulting total."
    )
    errors: list[UserError] = errors_field()


@graphql_type
class RetrySyncPayload:
    """Result of `retrySync`: the sync that retries."""

    sync: Sync | None = strawberry.field(
        default=None,
        description="The sync that retries: a new one for the current month, the same one for a month being closed.",
    )
    errors: list[UserError] = errors_field()


@graphql_type
class RepairDriftPayload:
    """Result of `repairDrift`: the sync that restores the lines."""

    sync: Sync | None = strawberry.field(
        default=None, description="The sync; it reads the draft from Stripe before it writes."
    )
    errors: list[UserError] = errors_field()


@graphql_type
class SweepWebhookEventsPayload:
    """Result of `sweepWebhookEvents`; the events that the worker finds appear in `webhookEvents`."""

    errors: list[UserError] = errors_field()


@graphql_type
class ReplayWebhookEventPayload:
    """Result of `replayWebhookEvent`: the queued event."""

    event: WebhookEvent | None = strawberry.field(
        default=None, description="The event, waiting to be processed."
    )
    errors: list[UserError] = errors_field()
