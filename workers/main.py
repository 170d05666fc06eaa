"""The worker process, ``arq workers.main.WorkerSettings``: one job, two loops, a few crons.

The job flushes one customer's period. The loops look for what is due (the ledger's due-set is the
truth, so a wake-up that was lost costs a second or two) and act on Stripe's events. The crons cut the
months that have ended, have periods compared with Stripe and take in the events that never arrived.
Nothing happens at import: arq asks this module for ``WorkerSettings``, and only then are the settings
read.
"""

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import Any

import structlog
from arq import ArqRedis, cron, func

from billing.budget import Lane
from billing.invoicing.flush_policy import Schedule
from billing.job_queue import (
    FLUSH,
    QUEUE,
    SWEEP,
    deserialize,
    queue_pool,
    serialize,
    set_patience,
)
from billing.ledger.keys import SHARDS
from billing.logs import configure_logging
from billing.services import Services, open_services
from billing.settings import Settings, load_settings
from billing.stripe import boottime
from billing.usage import CustomerId, Period
from workers.dispatcher import SLOTS, Work, dispatch
from workers.flush.closing import close_ended
from workers.flush.flush import flush
from workers.flush.policy import FlushPolicy, FlushPorts
from workers.metrics_server import figures_shown
from workers.poll_events import sweep_events
from workers.process_events import process_inbox
from workers.reconcile import reconcile

log = structlog.get_logger(__name__)

JOB_SECONDS = 90
GRACE_SECONDS = 25  # for the call in flight when it must go: Stripe's longest answer and a bit
PATIENCE = 600  # attempts, about a second apart, before a worker gives its queue up
PATIENCE_AT_START = 10  # before one that never reached it ends, and says why
IDLE_SECONDS = 0.5
BUSY_SECONDS = 0.05
INBOX_BATCH = 50  # objects
FAILED_SECONDS = 2.0
INSIST_SECONDS, INSIST_AFTER = 0.1, 10

# How arq runs; docs/decisions/arq.md explains each.
ARQ: dict[str, Any] = {
    "queue_name": QUEUE,
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
    """Bring Stripe up to date for *customer* and *period* ("2026-11"); harmless when nothing is due."""
    work: Work = ctx["work"]
    await flush(CustomerId(customer), Period.parse(period), work.ports, lane=Lane(lane))


async def drain_inbox(work: Work) -> bool:
    """Act on a batch of Stripe's events."""
    return await process_inbox(work.services, INBOX_BATCH) > 0


async def close_job(ctx: dict[str, Any]) -> None:
    """Cut the periods that have ended; their customers become due."""
    work: Work = ctx["work"]
    settle_ms = round(work.services.settings.settle_window * 1000)
    now_ms = round(time.time() * 1000)
    await close_ended(work.services.ledger, range(SHARDS), now_ms=now_ms, settle_ms=settle_ms)


async def sweep_job(ctx: dict[str, Any]) -> None:
    """Take in the events that Stripe could not deliver: when a worker starts, every ten minutes, when asked."""
    work: Work = ctx["work"]
    await sweep_events(work.services)


async def reconcile_job(ctx: dict[str, Any]) -> None:
    """Have the open periods of one shard compared with Stripe; every hour."""
    work: Work = ctx["work"]
    await reconcile(work.services.ledger, now_ms=round(time.time() * 1000))


async def _forever(work: Work, step: Callable[[Work], Awaitable[bool]]) -> None:
    """Do *step* again and again: at once while there is work, at leisure when not, whatever fails."""
    while not work.ending.is_set():
        try:
            pause = BUSY_SECONDS if await step(work) else IDLE_SECONDS
        except Exception:
            log.exception("worker.step_failed", step=step.__name__)
            pause = FAILED_SECONDS
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(work.ending.wait(), pause)


async def insist(task: "asyncio.Task[Any] | None") -> None:
    """Cancel *task*, arq's own loop, again until it ends, once somebody has cancelled it.

    `asyncio.wait_for`, in which redis-py sends each command, swallows a cancellation that meets its
    result (Python before 3.12). arq cancels once, and would go on for ever. A timeout cancels too, for
    a moment; so only a cancellation that stands at several looks in a row is meant.
    """
    looks = 0
    while task is not None and not task.done():
        looks = looks + 1 if task.cancelling() else 0
        if looks >= INSIST_AFTER:
            task.cancel()
        await asyncio.sleep(INSIST_SECONDS)


@dataclass
class Shift:
    """From arq's start of this process to its end; what was *opened* for it is closed last."""

    settings: Settings
    opened: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def start(self, ctx: dict[str, Any]) -> None:
        """Open the services and run the loops."""
        configure_logging()
        self.opened.enter_context(figures_shown(self.settings))
        set_patience(ctx["redis"], PATIENCE)
        services = await self.opened.enter_async_context(open_services(self.settings))
        work = ctx["work"] = Work(services, flush_ports(services))
        work.loops.append(asyncio.create_task(insist(asyncio.current_task()), name="insist"))
        for step in (dispatch, drain_inbox):
            work.loops.append(asyncio.create_task(_forever(work, step), name=step.__name__))
        self.opened.enter_context(_heard(partial(_go, work, ctx["redis"])))
        log.info("worker.started")

    async def stop(self, ctx: dict[str, Any]) -> None:
        """Begin nothing more, give what is under way its time, close everything."""
        work: Work | None = ctx.get("work")
        if work is None:
            return  # told to stop before it had started
        # Told, not cancelled: redis-py may swallow a cancellation on Python 3.11, and the loop would go on.
        work.end()
        await asyncio.gather(*work.loops)
        if work.flushes:
            left = max(0, work.ended + GRACE_SECONDS - time.monotonic())
            _, late = await asyncio.wait(work.flushes, timeout=left)
            for flushing in late:
                flushing.cancel()
        await self.opened.aclose()
        log.info("worker.stopped")


def worker_settings(settings: Settings) -> type:
    """What arq needs to know of this process."""
    shift = Shift(settings)
    given = {
        "functions": [func(flush_job, name=FLUSH, timeout=JOB_SECONDS, max_tries=3)],
        "cron_jobs": [
            cron(close_job, name="close", minute=None, second=5, keep_result=0),
            cron(
                sweep_job,
                name=SWEEP,
                minute=set(range(0, 60, 10)),
                run_at_startup=True,
                keep_result=0,
            ),
            cron(reconcile_job, name="reconcile", minute=17, keep_result=0),
        ],
        "redis_pool": queue_pool(settings.queue, patience=PATIENCE_AT_START),
        "on_startup": shift.start,
        "on_shutdown": shift.stop,
        **ARQ,
    }
    return type("WorkerSettings", (), given)


def _go(work: Work, queue: ArqRedis) -> None:
    """Begin nothing more; the last that arq does is a command, for which it would wait ten minutes."""
    work.end()
    set_patience(queue, 0)


@contextlib.contextmanager
def _heard(tell: Callable[[], None]) -> Iterator[None]:
    """*tell* at once when the process must go; arq, which hears it as well, tells only when its jobs are done."""
    loop = asyncio.get_running_loop()

    def hear(_number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(tell)

    before = {number: signal.signal(number, hear) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def flush_ports(services: Services) -> FlushPorts:
    """The outside world of a flush, the real one."""
    return FlushPorts(
        ledger=services.ledger,
        stripe=services.stripe,
        catalogue=services.catalogue,
        cache=services.cache,
        changes=services.changes,
        clock=boottime,
        random=random.random,
        policy=FlushPolicy(
            quiet=round(services.settings.quiet_time * 1000),
            lease=round(services.settings.flush_lease * 1000),
            schedule=Schedule.of(services.settings),
        ),
    )


def __getattr__(name: str) -> Any:
    if name == "WorkerSettings":
        return worker_settings(load_settings())
    raise AttributeError(name)
