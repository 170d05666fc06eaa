"""`syncBilling`, and the requests for syncs that other mutations make."""

import asyncio
import time
from typing import NamedTuple

from billing.budget import Lane
from billing.change_feed import Change, ChangeReason
from billing.errors import ErrorCode, Refused
from billing.ledger.syncs import Sync, SyncStatus, SyncTrigger
from billing.usage import CustomerId, Period
from resolvers.audited import AuditedAction
from resolvers.context import Context, Role
from resolvers.node_lookup import require_customer

FINISHED = frozenset({SyncStatus.SUCCEEDED, SyncStatus.FAILED})
POLL_SECONDS = 0.1  # between reads of the sync's status


class RequestedSync(NamedTuple):
    """A sync that waits for a worker; *coalesced* is true if an earlier request had created it."""

    sync: Sync
    coalesced: bool


async def sync_billing(context: Context, customer_id: str) -> RequestedSync:
    """Request a sync of the current month; Refused (ON_HOLD) while billing is on hold."""
    customer = (await require_customer(context, customer_id)).value.id
    if context.viewer.role is not Role.SUPPORT:  # the audit log records actions of Support only
        await require_not_on_hold(context, customer)
        return await request_sync(context, customer, SyncTrigger.ON_DEMAND)
    last = await context.loaders.last_sync(customer)
    action = AuditedAction(context, customer, "syncBilling")
    async with action.run({"sync": last.id if last else None}) as audit:
        await require_not_on_hold(context, customer)
        requested = await request_sync(context, customer, SyncTrigger.ON_DEMAND)
        audit.after, audit.sync = {"sync": requested.sync.id}, requested.sync.id
    return requested


async def require_not_on_hold(context: Context, customer: CustomerId) -> None:
    """Refuse (ON_HOLD) if *customer*'s billing is on hold."""
    if await context.loaders.hold(customer):
        raise Refused(
            ErrorCode.ON_HOLD,
            "Support has put this customer's billing on hold; syncs resume once it is released.",
        )


async def request_sync(
    context: Context, customer: CustomerId, trigger: SyncTrigger, month: Period | None = None
) -> RequestedSync:
    """Request a sync of the current month, or of *month*, and enqueue its flush."""
    services, viewer = context.bypass_loaders(), context.viewer
    sync, coalesced = await services.ledger.syncs.request(
        customer, trigger, by=viewer.subject, period=month
    )
    if not coalesced:  # the first request has enqueued the flush
        lane = Lane.SUPPORT if viewer.role is Role.SUPPORT else Lane.CUSTOMER
        await services.job_queue.enqueue_flush(customer, sync.period, lane)
    await services.change_feed.publish(Change(customer, ChangeReason.SYNC, sync=sync.id))
    return RequestedSync(sync, coalesced)


async def wait_until_finished(context: Context, sync: Sync, timeout_seconds: float) -> Sync:
    """Poll *sync* until it has succeeded or failed, at most *timeout_seconds*; return its last state."""
    deadline = time.monotonic() + timeout_seconds
    while sync.status not in FINISHED and time.monotonic() < deadline:
        await asyncio.sleep(POLL_SECONDS)
        sync = await context.bypass_loaders().ledger.syncs.get(sync.id) or sync
    return sync
