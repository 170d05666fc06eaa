"""The root type Mutation: converts inputs to arguments of ``resolvers.mutations``, and their results to payloads."""

# ruff: noqa: A002 the schema calls the argument `input`

from typing import Annotated

import strawberry

from resolvers.mutations.adjust_usage import Correction, adjust_usage
from resolvers.mutations.create_portal_session import create_portal_session
from resolvers.mutations.finalize_invoice import finalize_invoice
from resolvers.mutations.hold_billing import hold_billing
from resolvers.mutations.preview_sync import preview_sync
from resolvers.mutations.record_usage import record_usage
from resolvers.mutations.release_billing import release_billing
from resolvers.mutations.repair_drift import repair_drift
from resolvers.mutations.replay_webhook_event import replay_webhook_event
from resolvers.mutations.retry_sync import retry_sync
from resolvers.mutations.sweep_webhook_events import sweep_webhook_events
from resolvers.mutations.sync_billing import sync_billing
from schema import inputs, payloads
from schema.decorators import graphql_type
from schema.info import Info
from schema.payloads import mutation
from schema.types.adjustment import Adjustment
from schema.types.customer import Customer
from schema.types.hold import BillingHold
from schema.types.invoice import Invoice
from schema.types.sync import Sync
from schema.types.sync_plan import SyncPlan
from schema.types.webhook_event import WebhookEvent

CorrectionArgument = Annotated[
    inputs.CorrectionInput | None,
    strawberry.argument(
        description="Correction to include in the preview, as `adjustUsage` would apply it. A quantity of 0 has no effect."
    ),
]


@graphql_type
class Mutation:
    """All mutations. Expected errors are in the `errors` of the payload; GraphQL errors are unexpected."""

    @mutation
    async def sync_billing(
        self, info: Info, input: inputs.SyncBillingInput
    ) -> payloads.SyncBillingPayload:
        """Start a sync of the customer's pending usage to Stripe now.

        While a sync is waiting for a worker, a call returns that sync with `coalesced: true`. Error: ON_HOLD.
        """
        sync, coalesced = await sync_billing(info.context, input.customer_id)
        return payloads.SyncBillingPayload(sync=Sync.from_record(sync), coalesced=coalesced)

    @mutation
    async def create_portal_session(
        self, info: Info, input: inputs.CreatePortalSessionInput
    ) -> payloads.CreatePortalSessionPayload:
        """Create a session of Stripe's Customer Portal, after a sync of pending usage.

        Waits up to five seconds for the sync; if it is not finished by then, the session is created all the same
        and `sync` shows the status. Each call creates a new session.
        """
        flow = input.flow.value if input.flow else None
        session = await create_portal_session(
            info.context, input.customer_id, input.return_url, flow, input.reason
        )
        sync = Sync.from_record(session.sync) if session.sync else None
        return payloads.CreatePortalSessionPayload(url=session.url, sync=sync)

    @mutation
    async def record_usage(
        self, info: Info, input: inputs.RecordUsageInput
    ) -> payloads.RecordUsagePayload:
        """Metering only: record a batch of usage deltas, at most 10,000 (INVALID_INPUT above).

        Each delta is counted once, however often its `id` is sent. An invalid delta is listed in `rejected` and
        does not affect the others.
        """
        report = await record_usage(info.context, [delta.to_raw() for delta in input.deltas])
        return payloads.RecordUsagePayload.from_record(report)

    @mutation
    async def adjust_usage(
        self, info: Info, input: inputs.AdjustUsageInput
    ) -> payloads.AdjustUsagePayload:
        """Support only: correct one month's usage with an invoice line of its own, and start a sync.

        A month that has ended can be corrected until finalization of its invoice begins; then the error is
        PERIOD_CLOSED. A repeated call with the same `idempotencyKey` returns the first adjustment.
        """
        adjusted = await adjust_usage(
            info.context,
            input.customer_id,
            Correction(input.sku, input.quantity, input.month),
            reason=input.reason,
            idempotency_key=input.idempotency_key,
        )
        return payloads.AdjustUsagePayload(
            adjustment=Adjustment.from_record(adjusted.adjustment),
            sync=Sync.from_record(adjusted.sync),
        )

    @mutation
    async def hold_billing(
        self, info: Info, input: inputs.HoldBillingInput
    ) -> payloads.HoldBillingPayload:
        """Support only: put a customer's billing on hold.

        Usage is still counted, but nothing is written to Stripe until `releaseBilling`. Error ON_HOLD if a hold
        with another reason is active; a repeated call with the same reason returns the active hold.
        """
        hold = await hold_billing(
            info.context, input.customer_id, input.reason, input.idempotency_key
        )
        return payloads.HoldBillingPayload(hold=BillingHold.from_record(hold) if hold else None)

    @mutation
    async def release_billing(
        self, info: Info, input: inputs.ReleaseBillingInput
    ) -> payloads.ReleaseBillingPayload:
        """Support only: release the active hold; billing resumes where it stopped.

        If another hold is waiting, it becomes the active one. Without an active hold the call changes nothing.
        """
        customer = await release_billing(
            info.context, input.customer_id, input.reason, input.idempotency_key
        )
        return payloads.ReleaseBillingPayload(customer=Customer.from_record(customer))

    @mutation
    async def finalize_invoice(
        self, info: Info, input: inputs.FinalizeInvoiceInput
    ) -> payloads.FinalizeInvoicePayload:
        """Support only: finalize a draft invoice after a last sync; Stripe then collects it.

        Waits up to five seconds. If the returned `invoice` is still a draft, a worker finalizes it as soon as
        possible. Errors: NOT_DRAFT, INVALID_INPUT while the month is open, PERIOD_CLOSED if the draft names a
        month whose bill is final, ON_HOLD, SYNC_IN_PROGRESS, DRIFT.
        """
        invoice = await finalize_invoice(info.context, input.invoice_id, input.reason)
        return payloads.FinalizeInvoicePayload(
            invoice=Invoice.from_record(invoice) if invoice else None
        )

    @mutation
    async def preview_sync(
        self, info: Info, input: inputs.SyncBillingInput, correction: CorrectionArgument = None
    ) -> payloads.PreviewSyncPayload:
        """Support only: compute the writes that a sync would make, without making any.

        With `correction`, the plan includes that correction. Nothing is written to the ledger or to Stripe.
        """
        previewed = (
            Correction(correction.sku, correction.quantity, correction.month)
            if correction
            else None
        )
        preview = await preview_sync(info.context, input.customer_id, previewed)
        return payloads.PreviewSyncPayload(plan=SyncPlan.from_record(preview))

    @mutation
    async def retry_sync(
        self, info: Info, input: inputs.RetrySyncInput
    ) -> payloads.RetrySyncPayload:
        """Support only: retry a sync that failed or is waiting for its next attempt, at once.

        Errors: NOT_FOUND, ON_HOLD, SYNC_IN_PROGRESS while the sync is running, and PERIOD_CLOSED if the bill of
        its month is final.
        """
        sync = await retry_sync(info.context, input.sync_id, input.reason)
        return payloads.RetrySyncPayload(sync=Sync.from_record(sync))

    @mutation
    async def repair_drift(
        self, info: Info, input: inputs.RepairDriftInput
    ) -> payloads.RepairDriftPayload:
        """Support only: restore the gateway's lines on the customer's drafts to the quantities of the ledger.

        A worker reads the drafts from Stripe first. Lines that were added by hand stay unchanged. Error: ON_HOLD.
        """
        sync = await repair_drift(info.context, input.customer_id, input.reason)
        return payloads.RepairDriftPayload(sync=Sync.from_record(sync))

    @mutation
    async def replay_webhook_event(
        self, info: Info, input: inputs.ReplayWebhookEventInput
    ) -> payloads.ReplayWebhookEventPayload:
        """Support only: queue one of Stripe's events for processing again.

        An event that never arrived is fetched from Stripe, which keeps events for 30 days. Error: NOT_FOUND.
        """
        event = await replay_webhook_event(info.context, input.event_id, input.reason)
        return payloads.ReplayWebhookEventPayload(event=WebhookEvent.from_record(event))

    @mutation
    async def sweep_webhook_events(
        self, info: Info, input: inputs.SweepWebhookEventsInput
    ) -> payloads.SweepWebhookEventsPayload:
        """Support only: have a worker fetch the events that never arrived from Stripe's list of events."""
        await sweep_webhook_events(info.context, input.reason)
        return payloads.SweepWebhookEventsPayload()
