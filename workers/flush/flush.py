"""Bring Stripe up to what the ledger has counted, for one customer and period.

Acquire a lease and a snapshot; decide; write the exact requests down; send them; remember what Stripe
answered; let go. A worker may die between any two of these, and any worker goes on from there.
"""

import structlog

from billing.budget import Lane
from billing.cache import entries
from billing.change_feed import Change, ChangeReason
from billing.errors import LeaseLost, Leaving, StripeRejected, Unavailable
from billing.invoicing import diff
from billing.invoicing.snapshot import PeriodState, Snapshot
from billing.ledger.syncs import SyncFailure, SyncOutcome, SyncStatus
from billing.usage import CustomerId, Period
from workers.flush.closing import closing_step
from workers.flush.execution import Run
from workers.flush.on_hold import held_step, is_held
from workers.flush.outcome import (
    AGAIN,
    Ending,
    FlushOutcome,
    delete_draft,
    no_room,
    parked,
    planned,
    prepare_change,
    rejected,
    remember,
    spare_draft,
)
from workers.flush.policy import FlushPorts
from workers.flush.state import PriceMissing

log = structlog.get_logger(__name__)

MAX_STEPS = 24
MAX_REJECTIONS = 2
MAX_CRASHES = 5

STATUS = {
    FlushOutcome.SYNCED: SyncStatus.SUCCEEDED,
    FlushOutcome.SEALED: SyncStatus.SUCCEEDED,
    FlushOutcome.WAITING: SyncStatus.QUEUED,
    FlushOutcome.RETRYING: SyncStatus.RETRYING,
    FlushOutcome.PARKED: SyncStatus.FAILED,
}
ENDED = {SyncStatus.SUCCEEDED, SyncStatus.FAILED}


async def flush(
    customer: CustomerId,
    period: Period,
    ports: FlushPorts,
    *,
    lane: Lane = Lane.INTERVAL,
) -> Ending:
    """Tell Stripe what is new, or go on where another worker stopped; BUSY while one is at it.

    Refusals of Stripe park the period with a typed failure, a Stripe that is not available makes it
    due again later; neither raises. LedgerUnavailable does: nothing is known then, and the lease ends
    by itself.
    """
    began = ports.clock()
    held = await ports.ledger.acquire(customer, period, lease_ms=ports.policy.lease)
    if held is None:
        return Ending(FlushOutcome.BUSY)
    run = Run(ports, held.lease, held.snapshot, _urgency(lane, held.snapshot), began)
    try:
        ending = await _drive(run)
        await _let_go(run, held.snapshot, ending)
    except LeaseLost:
        log.info("flush.lease_lost", customer=customer, period=str(period))
        return Ending(FlushOutcome.LOST)
    _log_ended(run, ending)
    return ending


def _urgency(lane: Lane, snapshot: Snapshot) -> Lane:
    """What is found due in its turn goes sooner when somebody asked, or when the period closes.

    A mere comparison with Stripe goes last.
    """
    if lane is not Lane.INTERVAL:
        return lane
    if snapshot.asked:
        return Lane.CUSTOMER
    if snapshot.state is PeriodState.CLOSING:
        return Lane.CLOSE
    return Lane.BACKGROUND if snapshot.version == snapshot.synced else lane


async def _drive(run: Run) -> Ending:
    if run.snapshot.crashes > MAX_CRASHES:
        return parked("crash_loop", f"{MAX_CRASHES} workers in a row died on this period.")
    try:
        return await _steps(run)
    except PriceMissing as error:
        return parked(error.code, error.message)
    except StripeRejected as error:
        return rejected(error)
    except Leaving:
        return AGAIN  # by another worker, and nothing has failed
    except Unavailable as error:
        return Ending(
            FlushOutcome.RETRYING, _pause(run, error), SyncFailure(error.code, error.message)
        )


async def _steps(run: Run) -> Ending:
    if wait := await _patience(run):
        return Ending(FlushOutcome.WAITING, wait)
    for _ in range(MAX_STEPS):
        if ending := await _step(run):
            return ending
        if len(run.rejections) >= MAX_REJECTIONS:
            return rejected(run.rejections[-1])
    return Ending(FlushOutcome.WAITING, run.ports.policy.retry_base)


async def _patience(run: Run) -> int:
    """How long usage may still wait, when there is nothing else to do and nobody asked."""
    snapshot = run.snapshot
    begun = snapshot.flight is not None or snapshot.state is not PeriodState.OPEN
    if run.lane is not Lane.INTERVAL or begun or snapshot.up_to_date or _unverified(snapshot):
        return 0
    return run.ports.policy.schedule.wait(snapshot, await run.prices())


async def _step(run: Run) -> Ending | None:
    if await is_held(run):
        return await held_step(run)
    if run.snapshot.flight is not None:
        await run.execute()
        return None
    if run.snapshot.state is PeriodState.SEALED:
        return Ending(FlushOutcome.SEALED)
    if run.snapshot.state is PeriodState.CLOSING:
        return await closing_step(run)
    return await _open_step(run)


async def _open_step(run: Run) -> Ending | None:
    snapshot = run.snapshot
    if snapshot.up_to_date:
        return Ending(FlushOutcome.SYNCED)
    if _must_look(run):
        await run.look(listing=_unverified(snapshot))
        return None
    if run.is_final:
        # Somebody finalized it early: the period ends here, what comes later goes to the next one.
        await run.ports.ledger.close(snapshot.customer, snapshot.period)
        return AGAIN
    if spare := spare_draft(run):
        return await delete_draft(run, spare)
    work = await planned(run)
    if work is None:
        return no_room(run)
    if work.change:
        await prepare_change(run, work)
    else:
        await remember(run)
    return None


def _must_look(run: Run) -> bool:
    """Nothing is added, and no draft is made, without having looked first under this lease."""
    snapshot = run.snapshot
    if _unverified(snapshot) and run.others is None:
        return True
    if snapshot.invoice is None:
        return run.others is None and any(snapshot.totals.values())
    return run.seen is None and diff.needs_reading(snapshot)


def _unverified(snapshot: Snapshot) -> bool:
    return snapshot.verify_requested != snapshot.verify_done


def _pause(run: Run, error: Unavailable) -> int:
    """Growing gaps with jitter, bounded, and no shorter than what was asked for."""
    policy = run.ports.policy
    gap = min(policy.retry_cap, policy.retry_base << min(run.snapshot.attempts, 20))
    return max(int(error.retry_after * 1000), int(gap * (0.5 + run.ports.random() / 2)))


async def _let_go(run: Run, found: Snapshot, ending: Ending) -> None:
    """Readers may trust the cache again, the lease is free, and whoever watches hears of it."""
    ports, customer = run.ports, found.customer
    if run.touched:
        await ports.cache.written(*sorted(run.touched), entries.usage(customer))
    sync = _sync_outcome(run, ending)
    if ending.outcome is FlushOutcome.PARKED and ending.failure is not None:
        ran = await ports.ledger.park(run.lease, ending.failure, sync)
    else:
        ran = await ports.ledger.release(run.lease, delay_ms=ending.delay_ms, sync=sync)
    if run.touched or ending.failure or (ran and sync.status in ENDED):
        invoice = run.snapshot.invoice
        syncs: list[str | None] = [*ran] or [None]
        told = [Change(customer, ChangeReason.SYNC, each, invoice) for each in syncs]
        await ports.changes.publish(*told)


def _sync_outcome(run: Run, ending: Ending) -> SyncOutcome:
    return SyncOutcome(
        status=STATUS[ending.outcome],
        lines_added=run.sent.lines_added,
        lines_updated=run.sent.lines_updated,
        lines_removed=run.sent.lines_removed,
        stripe_calls=run.sent.calls,
        invoice=run.snapshot.invoice,
        failure=ending.failure,
    )


def _log_ended(run: Run, ending: Ending) -> None:
    log.info(
        "flush.ended",
        customer=run.snapshot.customer,
        period=str(run.snapshot.period),
        outcome=ending.outcome,
        calls=run.sent.calls,
        code=ending.failure and ending.failure.code,
    )
