"""The worker process, ``arq workers.main.WorkerSettings``: one job, two loops, a few crons.

The job flushes one customer's period. The loops dispatch due periods (the ledger's due-set is the truth, so a
lost job costs a second or two) and process Stripe's events. The crons close periods that have ended, verify
open periods against Stripe and poll events that were not delivered. Nothing happens at import: settings are
read when arq gets ``WorkerSettings`` from this module.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog
from arq import ArqRedis, cron, func

from billing.budget import Lane
from billing.job_queue import (
    FLUSH_JOB,
    POLL_EVENTS_JOB,
    QUEUE_NAME,
    deserialize,
    failure_of,
    queue_pool,
    serialize,
    set_max_retries,
)
from billing.ledger.keys import SHARDS
from billing.logs import configure_logging
from billing.services import open_services, startup_error
from billing.settings import DAY, Settings, load_settings
from billing.shutdown_signal import on_shutdown_signal
from billing.usage import CustomerId, Period
from workers.balance_books import balance_books
from workers.dispatcher import SLOTS, WorkerState, dispatch
from workers.flush.closing import close_ended_periods
from workers.flush.flush import flush
from workers.flush.policy import FlushContext
from workers.metrics_server import serve_metrics
from workers.poll_events import poll_events
from workers.process_events import process_events
from workers.reconcile import reconcile

log = structlog.get_logger(__name__)

JOB_SECONDS = 90
GRACE_SECONDS = 25  # for running calls at shutdown: Stripe's longest response time and a bit
QUEUE_ATTEMPTS = 600  # about a second apart, before a worker gives up its queue and ends
QUEUE_ATTEMPTS_AT_START = 10  # before a worker that never reached its queue ends with an error
IDLE_SECONDS = 0.5
BUSY_SECONDS = 0.05
INBOX_BATCH = 50  # objects
ERROR_SECONDS = 2.0
CANCEL_CHECK_SECONDS, CANCEL_CHECKS = 0.1, 10

# Settings of arq; docs/decisions/arq.md explains each.
ARQ: dict[str, Any] = {
    "queue_name": QUEUE_NAME,
    "max_jobs": SLOTS,
    "job_timeout": JOB_SECONDS,
    "job_completion_wait": GRACE_SECONDS,
    "keep_result": 0,
    "poll_delay": 0.05,
    "queue_read_limit": 1000,
    "allow_abort_jobs": False,
    "job_serializer": serialize,
    "job_deserializer": deserialize,
    "log_results": False,
}


async def flush_job(ctx: dict[str, Any], customer: str, period: str, lane: str) -> None:
    """Flush *customer* and *period* ("2026-11"); does nothing if the period is up to date."""
    worker: WorkerState = ctx["worker"]
    await flush(CustomerId(customer), Period.parse(period), worker.flush_context, lane=Lane(lane))


async def process_inbox(worker: WorkerState) -> bool:
    """Process a batch of Stripe's events; return True if there were any."""
    return await process_events(worker.services, INBOX_BATCH) > 0


async def close_periods_job(ctx: dict[str, Any]) -> None:
    """Close the periods that have ended; every minute."""
    services = ctx["worker"].services
    settle_ms = round(services.settings.settle_window * 1000)
    now_ms = round(time.time() * 1000)
    await close_ended_periods(services.ledger, range(SHARDS), now_ms=now_ms, settle_ms=settle_ms)


async def poll_events_job(ctx: dict[str, Any]) -> None:
    """Poll Stripe for undelivered events; at startup, every ten minutes and on request."""
    await poll_events(ctx["worker"].services)


async def reconcile_job(ctx: dict[str, Any]) -> None:
    """Request a verify of the open periods of one shard; every hour."""
    await reconcile(ctx["worker"].services.ledger, now_ms=round(time.time() * 1000))


async def balance_books_job(ctx: dict[str, Any]) -> None:
    """Balance the books of one shard; every quarter of an hour."""
    await balance_books(ctx["worker"].services, now_ms=round(time.time() * 1000))


async def trim_audit_job(ctx: dict[str, Any]) -> None:
    """Remove entries of the audit log that are older than its retention, if there is one; every night."""
    services = ctx["worker"].services
    if days := services.settings.audit_retention:
        removed = await services.audit.trim(round((time.time() - days * DAY) * 1000))
        log.info("audit.trimmed", removed=removed)


async def _run_loop(worker: WorkerState, step: Callable[[WorkerState], Awaitable[bool]]) -> None:
    """Repeat *step* until shutdown, with a pause that depends on whether it found work; log failures."""
    while not worker.shutdown.is_set():
        try:
            pause = BUSY_SECONDS if await step(worker) else IDLE_SECONDS
        except Exception:
            log.exception("worker.step_failed", step=step.__name__)
            pause = ERROR_SECONDS
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(worker.shutdown.wait(), pause)


async def cancel_until_done(task: "asyncio.Task[Any] | None") -> None:
    """Repeat a cancellation of *task*, arq's own loop, until the task ends.

    `asyncio.wait_for`, in which redis-py sends each command, swallows a cancellation that coincides with its
    result (Python before 3.12). arq cancels only once, so the process would run for ever. A timeout also
    cancels for a moment; therefore the cancellation must be pending at several checks in a row.
    """
    checks = 0
    while task is not None and not task.done():
        checks = checks + 1 if task.cancelling() else 0
        if checks >= CANCEL_CHECKS:
            task.cancel()
        await asyncio.sleep(CANCEL_CHECK_SECONDS)


@dataclass
class WorkerLifecycle:
    """arq's startup and shutdown hooks. *resources* are closed last."""

    settings: Settings
    resources: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def start(self, ctx: dict[str, Any]) -> None:
        """Open the services and start the loops."""
        configure_logging()
        self.resources.enter_context(serve_metrics(self.settings))
        set_max_retries(ctx["redis"], QUEUE_ATTEMPTS)
        services = await self.resources.enter_async_context(open_services(self.settings))
        worker = ctx["worker"] = WorkerState(services, FlushContext.from_services(services))
        arq_task = asyncio.current_task()
        worker.loops.append(asyncio.create_task(cancel_until_done(arq_task), name="cancel"))
        for step in (dispatch, process_inbox):
            worker.loops.append(asyncio.create_task(_run_loop(worker, step), name=step.__name__))
        begin_shutdown = partial(_begin_shutdown, worker, ctx["redis"])
        self.resources.enter_context(on_shutdown_signal(begin_shutdown))
        log.info("worker.started")

    async def stop(self, ctx: dict[str, Any]) -> None:
        """Start nothing more, wait for running flushes within the grace time, close everything."""
        worker: WorkerState | None = ctx.get("worker")
        if worker is None:
            return  # stopped before it had started
        # An event and not a cancellation: redis-py may swallow that on Python 3.11, and the loop would go on.
        worker.begin_shutdown()
        await asyncio.gather(*worker.loops)
        if worker.flushes:
            remaining = max(0, worker.shutdown_at + GRACE_SECONDS - time.monotonic())
            _, late = await asyncio.wait(worker.flushes, timeout=remaining)
            for task in late:
                task.cancel()
        await self.resources.aclose()
        log.info("worker.stopped")


def worker_settings(settings: Settings) -> type:
    """Return the class that arq reads its settings from."""
    lifecycle = WorkerLifecycle(settings)
    attributes = {
        "functions": [func(flush_job, name=FLUSH_JOB, timeout=JOB_SECONDS, max_tries=3)],
        "cron_jobs": [
            cron(close_periods_job, name="close", minute=None, second=5, keep_result=0),
            cron(
                poll_events_job,
                name=POLL_EVENTS_JOB,
                minute=set(range(0, 60, 10)),
                run_at_startup=True,
                keep_result=0,
            ),
            cron(reconcile_job, name="reconcile", minute=17, keep_result=0),
            cron(balance_books_job, name="balance", minute={4, 19, 34, 49}, keep_result=0),
            cron(trim_audit_job, name="trim_audit", hour=3, minute=41, keep_result=0),
        ],
        "redis_pool": queue_pool(settings.queue, max_retries=QUEUE_ATTEMPTS_AT_START),
        "on_startup": lifecycle.start,
        "on_shutdown": lifecycle.stop,
        **ARQ,
    }
    return type("WorkerSettings", (), attributes)


async def _check_queue(settings: Settings) -> None:
    """Raise StartupError if the queue cannot be reached; arq would end with a traceback."""
    async with queue_pool(settings.queue, max_retries=QUEUE_ATTEMPTS_AT_START) as queue:
        if failure := await failure_of(queue):
            raise startup_error(f"BILLING_QUEUE_URL: {failure}")


def _begin_shutdown(worker: WorkerState, queue: ArqRedis) -> None:
    """Start nothing more, and keep arq from retrying its last command for ten minutes."""
    worker.begin_shutdown()
    set_max_retries(queue, 0)


def __getattr__(name: str) -> Any:
    if name == "WorkerSettings":
        configure_logging()
        settings = load_settings()
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:  # arq's own comes later
            runner.run(_check_queue(settings))
        return worker_settings(settings)
    raise AttributeError(name)
