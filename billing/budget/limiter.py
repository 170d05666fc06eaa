"""Admission of Stripe calls under limits that all processes share.

A permit is acquired by one script in one round trip (``redis_limiter``), all or nothing, under

- a rate for the account and one for each endpoint, which adapt to Stripe's responses (AIMD),
- slots for list calls, because Stripe limits slow calls by concurrency,
- one mutation at a time for each object,
- a ration of reads over 30 days,
- a circuit breaker for each endpoint.

Lanes share the rates by priority, each with a floor that the lanes above cannot take. A caller has a share of its
lane, and more only while nobody else wants it. Within a process the callers of a lane take turns at an endpoint,
as the calls of each caller do, and only the first polls Redis. Without Redis each process uses a limiter of its
own (``local_fallback``).
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from weakref import WeakValueDictionary

from prometheus_client import Counter as Count
from prometheus_client import Histogram
from redis.asyncio import Redis

from billing.budget.call import StripeCall
from billing.budget.local_fallback import LocalLimiter
from billing.budget.permit import CallOutcome, Lane, Permit
from billing.budget.policy import BudgetPolicy
from billing.budget.portal_limiter import PortalLimiter
from billing.budget.redis_limiter import RedisLimiter
from billing.budget.state import BudgetState, read_state, read_waiting
from billing.errors import Overloaded, ShareUsed, ShuttingDown, Unavailable
from billing.redis_clients import UNREACHABLE

WAIT_SECONDS = Histogram(
    "billing_stripe_wait_seconds", "Waiting for room within Stripe's limits.", ["lane"]
)
CALLS = Count(
    "billing_stripe_calls", "Calls that requested admission.", ["endpoint", "lane", "outcome"]
)


SHARE = "share"  # the caller is beyond its share
OWN_REASONS = frozenset({"", "object", SHARE})  # the other callers need not wait
Queue = tuple[str, Lane, str]


class Budget:
    """The budget in *redis*, which must not evict keys; losing its data costs one burst."""

    def __init__(self, redis: Redis, policy: BudgetPolicy) -> None:
        self._redis = redis
        self._policy = policy
        self.portal = PortalLimiter(redis, policy.portal_sessions)
        self._redis_limiter = RedisLimiter(redis, policy)
        self._local_limiter = LocalLimiter()
        self._closed = asyncio.Event()
        self._locks: WeakValueDictionary[object, asyncio.Lock] = WeakValueDictionary()
        self._waiting: Counter[Queue] = Counter()
        self._releases: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def admission(self, call: StripeCall, lane: Lane) -> AsyncIterator[Permit]:
        """Wait for a permit for *call*, and hold it during the call.

        Overloaded, with the time to wait in ``retry_after``, if that takes longer than the policy's
        ``max_wait``; ShareUsed if the caller's share is the reason. A cancelled wait releases the permit. The permit of a successful read is released in
        the background: nothing that follows depends on it.
        """
        permit = Permit(call, lane)
        try:
            with WAIT_SECONDS.labels(lane).time():
                await self._acquire(permit)
            permit.outcome = CallOutcome.ABANDONED
            yield permit
        finally:
            CALLS.labels(call.endpoint, lane, permit.outcome).inc()
            if permit.acquired:
                # In a new task: before Python 3.11.3 redis-py cannot send in a task that was cancelled.
                release = asyncio.create_task(self._release(permit))
                self._releases.add(release)
                release.add_done_callback(self._releases.discard)
                if call.is_write or permit.outcome is not CallOutcome.OK:
                    await asyncio.shield(release)
                else:
                    await asyncio.sleep(0)  # until the release is sent

    async def _acquire(self, permit: Permit) -> None:
        max_wait, call = self._policy.max_wait, permit.call
        queue, deadline = (call.endpoint, permit.lane, permit.caller), _now() + max_wait
        queued_seconds = self._waiting[queue] / self._policy.rate_limit(call.endpoint).rate
        if queued_seconds > max_wait:
            raise _overloaded(permit, queued_seconds, SHARE if permit.caller else "rate")
        self._waiting[queue] += 1
        try:
            while (wait := await self._acquire_in_order(permit, queue, deadline)) > 0:
                await self._sleep(permit, wait, deadline)
        finally:
            self._waiting[queue] -= 1
            if not self._waiting[queue]:
                del self._waiting[queue]

    async def _acquire_in_order(self, permit: Permit, queue: Queue, deadline: float) -> float:
        """0 once the permit is acquired, or the seconds to wait for its locked object outside the queue."""
        async with self._first_in_queue(permit, queue, deadline):
            while True:
                wait, reason = await self._acquire_in_lane(permit, queue[:2], deadline)
                if reason != SHARE:
                    return wait
                await self._sleep(permit, wait, deadline, reason)

    async def _acquire_in_lane(
        self, permit: Permit, lane: tuple[str, Lane], deadline: float
    ) -> tuple[float, str]:
        """The seconds to wait without holding up other callers, and the reason; (0, "") once acquired."""
        async with self._first_in_queue(permit, lane, deadline):
            while True:
                wait, reason = await self._try_acquire(permit)
                if reason in OWN_REASONS:
                    return wait, reason
                await self._sleep(permit, wait, deadline, reason)

    @asynccontextmanager
    async def _first_in_queue(
        self, permit: Permit, queue: object, deadline: float
    ) -> AsyncIterator[None]:
        """Wait until *permit* is the first in *queue*, and keep it there."""
        lock = self._locks.setdefault(queue, asyncio.Lock())
        try:
            async with asyncio.timeout_at(deadline):
                await lock.acquire()
        except TimeoutError:
            raise _overloaded(permit, self._policy.max_wait) from None
        try:
            yield
        finally:
            lock.release()

    async def _try_acquire(self, permit: Permit) -> tuple[float, str]:
        if self._closed.is_set():
            raise ShuttingDown
        if self._local_limiter.active:
            return self._local_limiter.acquire(priority=permit.lane is Lane.CUSTOMER)
        waiting = sum(n for (_, lane, _), n in self._waiting.items() if lane is permit.lane)
        permit.acquired = True
        try:
            wait, reason = await self._redis_limiter.acquire(permit, waiting)
        except UNREACHABLE as error:
            permit.acquired = False
            self._local_limiter.activate(error)
            return self._local_limiter.acquire(priority=permit.lane is Lane.CUSTOMER)
        permit.acquired = not reason
        return wait, reason

    async def _sleep(self, permit: Permit, wait: float, deadline: float, reason: str = "") -> None:
        if _now() + wait > deadline:
            raise _overloaded(permit, wait, reason)
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._closed.wait()

    async def _release(self, permit: Permit) -> None:
        try:
            await self._redis_limiter.release(permit)
        except UNREACHABLE as error:
            self._local_limiter.activate(error)

    def close(self) -> None:
        """Admit no further call of this process: waiting and new callers get ShuttingDown at once.

        Admitted calls complete.
        """
        self._closed.set()

    async def drain(self) -> None:
        """Wait until every permit is released."""
        while self._releases:
            await asyncio.wait(self._releases)

    async def backlog(self) -> dict[Lane, float]:
        """Waiting calls of each lane over all processes, in seconds of an endpoint's rate; 0 without Redis.

        While a lane has a backlog, its work is better left in durable storage.
        """
        try:
            waiting = await read_waiting(self._redis)
        except UNREACHABLE:
            waiting = Counter()
        return {lane: waiting[lane] / self._policy.endpoint.rate for lane in Lane}

    async def state(self) -> BudgetState:
        """The waiting calls, and the state of each endpoint used so far; or Unavailable without Redis."""
        try:
            return await read_state(self._redis, Lane, self._policy)
        except UNREACHABLE as error:
            raise Unavailable(
                "The queue's server, where Stripe's budget is kept, cannot be reached; try again."
            ) from error


def _overloaded(permit: Permit, wait: float, reason: str = "") -> Overloaded:
    retry_after = max(wait, 0.1)
    if reason == SHARE:
        return ShareUsed(
            "Your share of Stripe's limits is used up for now.", retry_after=retry_after
        )
    return Overloaded(
        f"No room for {permit.call.endpoint} within Stripe's limits for now.",
        retry_after=retry_after,
    )


def _now() -> float:
    return asyncio.get_running_loop().time()
