"""The one module that enqueues: an arq job says "look at this now" and carries nothing else.

The due-set in the ledger is the truth, so a wake-up that is lost, doubled or late costs time and
never a cent; therefore a queue that cannot be reached is logged and not an error.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import structlog
from arq.connections import ArqRedis
from redis import exceptions as redis_errors
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

from billing.budget import Lane
from billing.errors import Unavailable
from billing.redis_clients import server
from billing.usage import CustomerId, Period

log = structlog.get_logger()

FLUSH = "flush"
SWEEP = "sweep"
QUEUE = "arq:billing"
# Longer than any outage that a queued wake-up should outlive; the due-set finds the rest.
EXPIRES_MS = 600_000


def serialize(job: dict[str, Any]) -> bytes:
    """A job as JSON: arq's default, pickle, would run whatever somebody writes into Redis."""
    return orjson.dumps(job, default=repr)


def deserialize(job: bytes) -> dict[str, Any]:
    """The job that `serialize` wrote (tuples come back as lists)."""
    loaded: dict[str, Any] = orjson.loads(job)
    return loaded


def queue_pool(url: str, *, patience: int) -> ArqRedis:
    """A pool for arq that survives *patience* failed attempts in a row (about a second each).

    The builtin OSError is in the list because redis-py lets a refused connection through unwrapped,
    and without it a restart of Redis ends an arq worker.
    """
    pool = server(
        url,
        ArqRedis,
        socket_timeout=5,
        socket_keepalive=True,
        health_check_interval=15,
        retry=_patient(patience),
        retry_on_error=[
            OSError,
            redis_errors.ConnectionError,
            redis_errors.TimeoutError,
            redis_errors.BusyLoadingError,
        ],
    )
    pool.job_serializer = serialize
    pool.job_deserializer = deserialize
    pool.default_queue_name = QUEUE
    pool.expires_extra_ms = EXPIRES_MS
    return pool


def set_patience(pool: ArqRedis, patience: int) -> None:
    """From now on let each command of *pool* survive *patience* failed attempts."""
    pool.set_retry(_patient(patience))


def _patient(patience: int) -> Retry:
    return Retry(ExponentialBackoff(cap=1, base=0.05), patience)


class Wakeups:
    """Wakes a worker."""

    def __init__(self, pool: ArqRedis) -> None:
        self._pool = pool

    async def flush(self, customer: CustomerId, period: Period, lane: Lane) -> None:
        """Have some worker look at what *customer* owes for *period*, soon, calling Stripe in *lane*."""
        try:
            await self._pool.enqueue_job(FLUSH, customer, str(period), lane.value)
        except (redis_errors.RedisError, OSError) as error:
            log.warning("wakeup.lost", customer=customer, error=type(error).__name__)

    async def sweep(self) -> None:
        """Have some worker take in what Stripe could not deliver; Unavailable when none can be told."""
        try:
            await self._pool.enqueue_job(SWEEP)
        except (redis_errors.RedisError, OSError) as error:
            raise Unavailable("The queue cannot be reached; ask again.", retry_after=1) from error


@asynccontextmanager
async def open_wakeups(url: str) -> AsyncIterator[Wakeups]:
    """Wake-ups on the queue at *url*; the connection is made at the first one."""
    pool = queue_pool(url, patience=1)
    try:
        yield Wakeups(pool)
    finally:
        await pool.aclose()
