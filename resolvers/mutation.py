"""The things that can be done: the table of contents; each is done in its noun's own file."""

import strawberry

from resolvers.acts.adjusting import adjust_usage
from resolvers.acts.finalizing import finalize_invoice
from resolvers.acts.holding import hold_billing, release_billing
from resolvers.acts.payloads import (
    AdjustUsagePayload,
    CreatePortalSessionPayload,
    FinalizeInvoicePayload,
    HoldBillingPayload,
    PreviewSyncPayload,
    RecordUsagePayload,
    ReleaseBillingPayload,
    RepairDriftPayload,
    ReplayWebhookEventPayload,
    RetrySyncPayload,
    SweepWebhookEventsPayload,
    SyncBillingPayload,
)
from resolvers.acts.portal import create_portal_session
from resolvers.acts.previewing import preview_sync
from resolvers.acts.recording import record_usage
from resolvers.acts.repairing import repair_drift
from resolvers.acts.replaying import replay_webhook_event, sweep_webhook_events
from resolvers.acts.syncing import retry_sync, sync_billing
from schema.types.describing import graphql_type


@graphql_type
class Mutation:
    """Everything that can be done. Expected refusals are in the payload's `errors`, not GraphQL errors."""

    sync_billing: SyncBillingPayload = strawberry.mutation(resolver=sync_billing)
    create_portal_session: CreatePortalSessionPayload = strawberry.mutation(
        resolver=create_portal_session
    )
    record_usage: RecordUsagePayload = strawberry.mutation(resolver=record_usage)
    adjust_usage: AdjustUsagePayload = strawberry.mutation(resolver=adjust_usage)
    hold_billing: HoldBillingPayload = strawberry.mutation(resolver=hold_billing)
    release_billing: ReleaseBillingPayload = strawberry.mutation(resolver=release_billing)
    finalize_invoice: FinalizeInvoicePayload = strawberry.mutation(resolver=finalize_invoice)
    preview_sync: PreviewSyncPayload = strawberry.mutation(resolver=preview_sync)
    retry_sync: RetrySyncPayload = strawberry.mutation(resolver=retry_sync)
    repair_drift: RepairDriftPayload = strawberry.mutation(resolver=repair_drift)
    replay_webhook_event: ReplayWebhookEventPayload = strawberry.mutation(
        resolver=replay_webhook_event
    )
    sweep_webhook_events: SweepWebhookEventsPayload = strawberry.mutation(
        resolver=sweep_webhook_events
    )
