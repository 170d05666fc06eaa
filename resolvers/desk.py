"""Support's desk: what Support does to a customer's bill; each act stands in the audit log."""

# ruff: noqa: A002 the contract calls the argument `input`

from resolvers.context import Info
from resolvers.payloads import (
    AdjustUsagePayload,
    FinalizeInvoicePayload,
    HoldBillingPayload,
    PreviewSyncPayload,
    ReleaseBillingPayload,
    RepairDriftPayload,
    ReplayWebhookEventPayload,
    RetrySyncPayload,
)
from resolvers.refusing import refusing
from schema.types.inputs import (
    AdjustUsageInput,
    FinalizeInvoiceInput,
    HoldBillingInput,
    ReleaseBillingInput,
    RepairDriftInput,
    ReplayWebhookEventInput,
    RetrySyncInput,
    SyncBillingInput,
)


@refusing
async def adjust_usage(info: Info, input: AdjustUsageInput) -> AdjustUsagePayload:
    """Support only: correct this month's usage by a line of its own, and sync."""
    raise NotImplementedError


@refusing
async def hold_billing(info: Info, input: HoldBillingInput) -> HoldBillingPayload:
    """Support only: stop telling Stripe and finalizing; usage is still counted."""
    raise NotImplementedError


@refusing
async def release_billing(info: Info, input: ReleaseBillingInput) -> ReleaseBillingPayload:
    """Support only: let billing go on where it was stopped."""
    raise NotImplementedError


@refusing
async def finalize_invoice(info: Info, input: FinalizeInvoiceInput) -> FinalizeInvoicePayload:
    """Support only: close a draft after a last sync; Stripe then collects it."""
    raise NotImplementedError


@refusing
async def preview_sync(info: Info, input: SyncBillingInput) -> PreviewSyncPayload:
    """Support only: what a sync would tell Stripe, without telling it."""
    raise NotImplementedError


@refusing
async def retry_sync(info: Info, input: RetrySyncInput) -> RetrySyncPayload:
    """Support only: try a sync again that failed or waits for its next attempt."""
    raise NotImplementedError


@refusing
async def repair_drift(info: Info, input: RepairDriftInput) -> RepairDriftPayload:
    """Support only: read what Stripe has, and set our lines right; lines that others made stay."""
    raise NotImplementedError


@refusing
async def replay_webhook_event(
    info: Info, input: ReplayWebhookEventInput
) -> ReplayWebhookEventPayload:
    """Support only: take up one of Stripe's events again."""
    raise NotImplementedError
