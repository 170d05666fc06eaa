"""Claims and flushes due periods: as many as this process has slots and Stripe's budget has room for.

Closing periods and requested syncs whose queued job was lost have slots of their own, so that they and routine
flushes never starve each other.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import structlog

from billing.budget import Lane
from billing.services import Services
from billing.usage import CustomerId, Period
from workers.flush.flush import flush
from workers.flush.policy import FlushContext

log = structlog.get_logger(__name__)

SLOTS = 10
# Claim nothing while calls of all workers wait longer than this for Stripe's budget: a claimed period would only
# wait with its lease taken.
MAX_QUEUE_SECONDS = 2.0

Claim = Callable[[int, int, int], Awaitable[list[tuple[CustomerId, Period]]]]
FlushTasks = set["asyncio.Task[None]"]


@dataclass
class WorkerState:
    """The state of this process: services, running flushes and loops. *shutdown* stops the loops."""

    services: Services
    flush_context: FlushContext
    priority: FlushTasks = field(default_factory=set)
    routine: FlushTasks = field(default_factory=set)
    loops: list[asyncio.Task[None]] = field(default_factory=list)
    shutdown: asyncio.Event = field(default_factory=asyncio.Event)
    shutdown_at: float = 0.0  # monotonic clock

    @property
    def flushes(self) -> FlushTasks:
        """The running flushes that the dispatcher started."""
        return self.priority | self.routine

    def begin_shutdown(self) -> None:
        """Start no further flush and no further call to Stripe; running calls complete."""
        if not self.shutdown.is_set():
            self.shutdown_at = time.monotonic()
            self.shutdown.set()
        self.services.budget.close()


async def dispatch(worker: WorkerState) -> bool:
    """Start flushes of due periods, longest overdue first; return True if there were any.

    They bypass the queue, so that queued jobs, which panels wait for, never wait behind routine flushes.
    """
    ledger = worker.services.ledger
    queue_seconds, backlogs = await worker.services.budget.backlog(), await ledger.due.backlogs()
    found = False
    if queue_seconds[Lane.CLOSE] <= MAX_QUEUE_SECONDS:
        overdue_ms = [backlog.priority_ms for backlog in backlogs]
        found = await _fill_slots(worker, worker.priority, ledger.due.claim_priority, overdue_ms)
    if queue_seconds[Lane.INTERVAL] <= MAX_QUEUE_SECONDS:
        overdue_ms = [backlog.due_ms for backlog in backlogs]
        found = await _fill_slots(worker, worker.routine, ledger.due.claim, overdue_ms) or found
    return found


async def _fill_slots(
    worker: WorkerState, flushes: FlushTasks, claim: Claim, overdue_ms: Sequence[int | None]
) -> bool:
    """Fill the free slots of *flushes*, most overdue shard first; *overdue_ms* is by shard."""
    # If this worker dies, the period is due again while its lease may still run.
    hidden_ms = worker.flush_context.policy.lease_ms // 2
    found = False
    shards = sorted(
        (-ms, shard) for shard, ms in enumerate(overdue_ms) if ms is not None and ms >= 0
    )
    for _, shard in shards:
        free = SLOTS - len(flushes)
        if free <= 0 or worker.shutdown.is_set():
            break
        for customer, period in await claim(shard, free, hidden_ms):
            task = asyncio.create_task(_flush(worker, customer, period))
            flushes.add(task)
            task.add_done_callback(flushes.discard)
            found = True
    return found


async def _flush(worker: WorkerState, customer: CustomerId, period: Period) -> None:
    try:
        await flush(customer, period, worker.flush_context, lane=Lane.INTERVAL)
    except Exception:
        log.exception("worker.flush_failed", customer=customer)
