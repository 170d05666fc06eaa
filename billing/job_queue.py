"""Enqueues arq jobs; no other module does. A job names what to process and carries no state.

The due set in the ledger is the truth, so a lost, doubled or late job costs time and never a cent.
Therefore an unreachable queue is logged and is not an error.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import structlog
from arq.connections import ArqRedis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

from billing.budget import Lane
from billing.errors import Unavailable
from billing.redis_clients import RETRIED_ERRORS, UNREACHABLE, awaited, client, describe_failure
from billing.usage import CustomerId, Period

log = structlog.get_logger()

FLUSH_JOB = "flush"
POLL_EVENTS_JOB = "sweep"
QUEUE_NAME = "arq:billing"
# Longer than any outage that a queued job should outlive; the due set finds the rest.
JOB_TTL_MS = 600_000


def serialize(job: dict[str, Any]) -> bytes:
    """Encode a job as JSON: arq's default, pickle, would execute anything written into Redis."""
    return orjson.dumps(job, default=repr)


def deserialize(job: bytes) -> dict[str, Any]:
    """Decode a job that `serialize` encoded; tuples become lists."""
    loaded: dict[str, Any] = orjson.loads(job)
    return loaded


def queue_pool(url: str, *, max_retries: int) -> ArqRedis:
    """A pool for arq that retries a command *max_retries* times (about a second each).

    A restart of Redis would end an arq worker otherwise.
    """
    pool = client(
        url,
        ArqRedis,
        socket_timeout=5,
        socket_keepalive=True,
        health_check_interval=15,
        retry=_retry(max_retries),
        retry_on_error=RETRIED_ERRORS,
    )
    pool.job_serializer = serialize
    pool.job_deserializer = deserialize
    pool.default_queue_name = QUEUE_NAME
    pool.expires_extra_ms = JOB_TTL_MS
    return pool


async def failure_of(pool: ArqRedis) -> str | None:
    """Return why the queue of *pool* cannot be used, as a sentence; None if it can."""
    try:
        await awaited(pool.ping())
    except UNREACHABLE as error:
        return describe_failure(error)
    return None


def set_max_retries(pool: ArqRedis, max_retries: int) -> None:
    """Let each further command of *pool* be retried *max_retries* times."""
    pool.set_retry(_retry(max_retries))


def _retry(max_retries: int) -> Retry:
    return Retry(ExponentialBackoff(cap=1, base=0.05), max_retries)


class JobQueue:
    """Enqueues jobs for the workers."""

    def __init__(self, pool: ArqRedis) -> None:
        self._pool = pool

    async def enqueue_flush(self, customer: CustomerId, period: Period, lane: Lane) -> None:
        """Enqueue a flush of the customer's period, whose Stripe calls use *lane*; never raises."""
        try:
            await self._pool.enqueue_job(FLUSH_JOB, customer, str(period), lane.value)
        except UNREACHABLE as error:
            log.warning("job_queue.unavailable", customer=customer, error=type(error).__name__)

    async def enqueue_poll(self) -> None:
        """Enqueue a poll for undelivered Stripe events; Unavailable when the queue cannot be reached."""
        try:
            await self._pool.enqueue_job(POLL_EVENTS_JOB)
        except UNREACHABLE as error:
            raise Unavailable("The queue cannot be reached; try again.", retry_after=1) from error


@asynccontextmanager
async def open_job_queue(url: str) -> AsyncIterator[JobQueue]:
    """The queue at *url*; it connects with the first job."""
    pool = queue_pool(url, max_retries=1)
    try:
        yield JobQueue(pool)
    finally:
        await pool.aclose()
