"""Bringing Stripe up to date, and trying again."""

# ruff: noqa: A002 the contract calls the argument `input`

import asyncio
import time

import billing.ledger.syncs
from billing.budget import Lane
from billing.change_feed import Change, ChangeReason
from billing.errors import ErrorCode, Refused
from billing.ledger.syncs import SyncStatus
from billing.usage import CustomerId, Period
from resolvers.audited import Act
from resolvers.context import Context, Info, Role
from resolvers.mutations.payloads import (
    RetrySyncPayload,
    SyncBillingPayload,
)
from resolvers.node_lookup import find, must_find_customer, not_found
from resolvers.types.sync import Sync, SyncTrigger
from resolvers.user_errors import refusing
from resolvers.validation import reasoned
from schema.inputs import RetrySyncInput, SyncBillingInput

FINISHED = frozenset({SyncStatus.SUCCEEDED, SyncStatus.FAILED})
GLANCE = 0.1  # seconds between looks at a sync that is waited for


@refusing
async def sync_billing(info: Info, input: SyncBillingInput) -> SyncBillingPayload:
    """Bring Stripe up to date for this customer now. Calls that find a sync waiting get that one back."""
    context = info.context
    customer = (await must_find_customer(context, input.customer_id)).record.id
    if context.viewer.role is not Role.SUPPORT:  # customers' own clicks are no acts of Support's
        await must_not_be_held(context, customer)
        sync, coalesced = await request_sync(context, customer, SyncTrigger.ON_DEMAND)
        return SyncBillingPayload(sync=Sync.of(sync), coalesced=coalesced)
    was = await context.loaders.last_sync.load(customer)
    async with Act(context, customer, "syncBilling").noted(
        {"sync": was.id if was else None}
    ) as noted:
        await must_not_be_held(context, customer)
        sync, coalesced = await request_sync(context, customer, SyncTrigger.ON_DEMAND)
        noted.after, noted.sync = {"sync": sync.id}, sync.id
    return SyncBillingPayload(sync=Sync.of(sync), coalesced=coalesced)


@refusing
async def retry_sync(info: Info, input: RetrySyncInput) -> RetrySyncPayload:
    """Support only: try a sync again that failed or waits for its next attempt."""
    found = await find(info.context, input.sync_id)
    if not isinstance(found, Sync):
        raise not_found("sync", input.sync_id, "syncId")
    was = found.record
    act = Act(
        info.context, was.customer, "retrySync", reasoned(input.reason) if input.reason else None
    )
    async with act.noted(_words(was)) as noted:
        if was.status is SyncStatus.RUNNING:
            raise Refused(
                ErrorCode.SYNC_IN_PROGRESS, "This sync is running right now; wait for how it ends."
            )
        await must_not_be_held(info.context, was.customer)
        sync = await _woken(info.context, was)
        noted.after, noted.sync = _words(sync), sync.id
    return RetrySyncPayload(sync=Sync.of(sync))


def _words(sync: billing.ledger.syncs.Sync) -> dict[str, str | None]:
    failure = sync.failure.code if sync.failure else None
    return {"sync": sync.id, "status": sync.status, "failure": failure}


async def _woken(context: Context, was: billing.ledger.syncs.Sync) -> billing.ledger.syncs.Sync:
    """The sync that goes on where *was* stopped; that of a month being closed is its closing's own."""
    ledger = context.services.ledger
    await ledger.wake(was.customer, was.period)
    if was.period == await ledger.open_period(was.customer):
        return (await request_sync(context, was.customer, SyncTrigger.SUPPORT))[0]
    await context.services.wakeups.flush(was.customer, was.period, Lane.SUPPORT)
    return was


async def must_not_be_held(context: Context, customer: CustomerId) -> None:
    """Refused (ON_HOLD) while Support has stopped *customer*'s billing."""
    if await context.loaders.hold.load(customer):
        raise Refused(
            ErrorCode.ON_HOLD,
            "Support has put this customer's billing on hold; Stripe is told again once it is released.",
        )


async def request_sync(
    context: Context, customer: CustomerId, trigger: SyncTrigger, month: Period | None = None
) -> tuple[billing.ledger.syncs.Sync, bool]:
    """A sync that waits for a worker, woken at once, and whether it was waiting before.

    Of the current month, or of *month* while its bill can change.
    """
    services, viewer = context.services, context.viewer
    sync, joined = await services.ledger.request_sync(
        customer, trigger, by=viewer.subject, period=month
    )
    lane = Lane.SUPPORT if viewer.role is Role.SUPPORT else Lane.CUSTOMER
    if not joined:  # whoever asked first has woken a worker
        await services.wakeups.flush(customer, sync.period, lane)
    await services.changes.publish(Change(customer, ChangeReason.SYNC, sync=sync.id))
    return sync, joined


async def finished(
    context: Context, sync: billing.ledger.syncs.Sync, patience: float
) -> billing.ledger.syncs.Sync:
    """*sync* once it has succeeded or failed, or as it stands after *patience* seconds."""
    until = time.monotonic() + patience
    while sync.status not in FINISHED and time.monotonic() < until:
        await asyncio.sleep(GLANCE)
        sync = await context.services.syncs.get(sync.id) or sync
    return sync
