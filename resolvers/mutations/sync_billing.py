"""`syncBilling` and `retrySync`, and the requests for syncs that other mutations make."""

# ruff: noqa: A002 the contract calls the argument `input`

import asyncio
import time

import billing.ledger.syncs
from billing.budget import Lane
from billing.change_feed import Change, ChangeReason
from billing.errors import ErrorCode, Refused
from billing.ledger.syncs import SyncStatus
from billing.usage import CustomerId, Period
from resolvers.audited import AuditedAction
from resolvers.context import Context, Info, Role
from resolvers.mutations.payloads import (
    RetrySyncPayload,
    SyncBillingPayload,
)
from resolvers.node_lookup import find_node, not_found, require_customer
from resolvers.types.sync import Sync, SyncTrigger
from resolvers.user_errors import with_user_errors
from resolvers.validation import validate_reason
from schema.inputs import RetrySyncInput, SyncBillingInput

FINISHED = frozenset({SyncStatus.SUCCEEDED, SyncStatus.FAILED})
POLL_SECONDS = 0.1  # between reads of the sync's status


@with_user_errors
async def sync_billing(info: Info, input: SyncBillingInput) -> SyncBillingPayload:
    """Start a sync of the customer's pending usage to Stripe now.

    While a sync is waiting for a worker, a call returns that sync with `coalesced: true`. Error: ON_HOLD.
    """
    context = info.context
    customer = (await require_customer(context, input.customer_id)).record.id
    if context.viewer.role is not Role.SUPPORT:  # the audit log records actions of Support only
        await require_not_on_hold(context, customer)
        sync, coalesced = await request_sync(context, customer, SyncTrigger.ON_DEMAND)
        return SyncBillingPayload(sync=Sync.from_record(sync), coalesced=coalesced)
    previous = await context.loaders.last_sync.load(customer)
    async with AuditedAction(context, customer, "syncBilling").run(
        {"sync": previous.id if previous else None}
    ) as audit:
        await require_not_on_hold(context, customer)
        sync, coalesced = await request_sync(context, customer, SyncTrigger.ON_DEMAND)
        audit.after, audit.sync = {"sync": sync.id}, sync.id
    return SyncBillingPayload(sync=Sync.from_record(sync), coalesced=coalesced)


@with_user_errors
async def retry_sync(info: Info, input: RetrySyncInput) -> RetrySyncPayload:
    """Support only: retry a sync that failed or is waiting for its next attempt, at once.

    Errors: NOT_FOUND, ON_HOLD, and SYNC_IN_PROGRESS while the sync is running.
    """
    node = await find_node(info.context, input.sync_id)
    if not isinstance(node, Sync):
        raise not_found("sync", input.sync_id, "syncId")
    previous = node.record
    action = AuditedAction(
        info.context,
        previous.customer,
        "retrySync",
        validate_reason(input.reason) if input.reason else None,
    )
    async with action.run(_describe(previous)) as audit:
        if previous.status is SyncStatus.RUNNING:
            raise Refused(
                ErrorCode.SYNC_IN_PROGRESS, "This sync is running; wait until it has finished."
            )
        await require_not_on_hold(info.context, previous.customer)
        sync = await _resume(info.context, previous)
        audit.after, audit.sync = _describe(sync), sync.id
    return RetrySyncPayload(sync=Sync.from_record(sync))


def _describe(sync: billing.ledger.syncs.Sync) -> dict[str, str | None]:
    failure = sync.failure.code if sync.failure else None
    return {"sync": sync.id, "status": sync.status, "failure": failure}


async def _resume(
    context: Context, previous: billing.ledger.syncs.Sync
) -> billing.ledger.syncs.Sync:
    """Make the period due now; return a new sync for the current month, *previous* for a month being closed."""
    ledger = context.uncached_services().ledger
    await ledger.wake(previous.customer, previous.period)
    if previous.period == await ledger.current_period(previous.customer):
        return (await request_sync(context, previous.customer, SyncTrigger.SUPPORT))[0]
    await context.uncached_services().job_queue.enqueue_flush(
        previous.customer, previous.period, Lane.SUPPORT
    )
    return previous


async def require_not_on_hold(context: Context, customer: CustomerId) -> None:
    """Refuse (ON_HOLD) if *customer*'s billing is on hold."""
    if await context.loaders.hold.load(customer):
        raise Refused(
            ErrorCode.ON_HOLD,
            "Support has put this customer's billing on hold; syncs resume once it is released.",
        )


async def request_sync(
    context: Context, customer: CustomerId, trigger: SyncTrigger, month: Period | None = None
) -> tuple[billing.ledger.syncs.Sync, bool]:
    """Request a sync of the current month, or of *month*, and enqueue its flush.

    Returns the sync, and whether it was waiting already.
    """
    services, viewer = context.uncached_services(), context.viewer
    sync, joined = await services.ledger.request_sync(
        customer, trigger, by=viewer.subject, period=month
    )
    lane = Lane.SUPPORT if viewer.role is Role.SUPPORT else Lane.CUSTOMER
    if not joined:  # the first request has enqueued the flush
        await services.job_queue.enqueue_flush(customer, sync.period, lane)
    await services.change_feed.publish(Change(customer, ChangeReason.SYNC, sync=sync.id))
    return sync, joined


async def wait_until_finished(
    context: Context, sync: billing.ledger.syncs.Sync, timeout_seconds: float
) -> billing.ledger.syncs.Sync:
    """Poll *sync* until it has succeeded or failed, at most *timeout_seconds*; return its last state."""
    deadline = time.monotonic() + timeout_seconds
    while sync.status not in FINISHED and time.monotonic() < deadline:
        await asyncio.sleep(POLL_SECONDS)
        sync = await context.uncached_services().syncs.get(sync.id) or sync
    return sync
