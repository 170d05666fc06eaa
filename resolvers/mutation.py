"""The root type Mutation: one line for each mutation; the resolvers are in ``resolvers.mutations``."""

import strawberry

from resolvers.mutations.adjust_usage import adjust_usage
from resolvers.mutations.create_portal_session import create_portal_session
from resolvers.mutations.finalize_invoice import finalize_invoice
from resolvers.mutations.hold_billing import hold_billing, release_billing
from resolvers.mutations.payloads import (
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
from resolvers.mutations.preview_sync import preview_sync
from resolvers.mutations.record_usage import record_usage
from resolvers.mutations.repair_drift import repair_drift
from resolvers.mutations.replay_webhook_event import replay_webhook_event, sweep_webhook_events
from resolvers.mutations.sync_billing import retry_sync, sync_billing
from schema.decorators import graphql_type


@graphql_type
class Mutation:
    """All mutations. Expected errors are in the `errors` of the payload; GraphQL errors are unexpected."""

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
