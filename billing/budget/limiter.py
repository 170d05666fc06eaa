"""One allowance of Stripe calls, shared by every process: who may call now, and who waits how long.

Admission is one script and one round trip (``shared``), all or nothing, over

- a rate for the account and a rate for each endpoint, which shrink and recover with Stripe's answers,
- slots for list calls, because Stripe limits slow calls by concurrency,
- one mutation at a time for each object,
- a ration of reads over 30 days,
- a breaker for each endpoint that fails.

Lanes share the rates by priority, each with a floor that nobody above can take. Within a process a
lane's calls to one endpoint wait in line, so that only the first of them asks Redis. When Redis
cannot be reached each process goes on alone (``alone``).
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from prometheus_client import Counter as Count
from prometheus_client import Histogram
from redis.asyncio import Redis
from redis.exceptions import RedisError

from billing.budget.call import Call
from billing.budget.local_fallback import Alone
from billing.budget.permit import CallOutcome, Lane, Passage
from billing.budget.policy import BudgetPolicy
from billing.budget.redis_limiter import Shared
from billing.budget.state import BudgetState, read_state, read_waiting
from billing.errors import Leaving, Overloaded, Unavailable

UNREACHABLE = (RedisError, OSError)

WAITED = Histogram(
    "billing_stripe_wait_seconds", "Waiting for room within Stripe's limits.", ["lane"]
)
CALLS = Count("billing_stripe_calls", "Calls that asked for room.", ["endpoint", "lane", "outcome"])


class Budget:
    """The allowance kept in *redis* (any but an evicting one; losing it costs one burst)."""

    def __init__(self, redis: Redis, policy: BudgetPolicy) -> None:
        self._redis = redis
        self._policy = policy
        self._shared = Shared(redis, policy)
        self._alone = Alone()
        self._closed = asyncio.Event()
        self._turns: defaultdict[tuple[str, Lane], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._waiting: Counter[tuple[str, Lane]] = Counter()
        self._settling: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def admission(self, call: Call, lane: Lane) -> AsyncIterator[Passage]:
        """Wait until *call* may be made, and hold what it needs while it is made.

        Overloaded when that takes longer than the policy's ``max_wait``: nothing was sent, and
        ``retry_after`` says when there may be room. A cancelled wait gives everything back. The answer of
        a read may be used before what it held is given back: nothing that follows depends on it.
        """
        passage = Passage(call, lane)
        try:
            with WAITED.labels(lane).time():
                await self._wait_in_line(passage)
            passage.outcome = CallOutcome.ABANDONED
            yield passage
        finally:
            CALLS.labels(call.endpoint, lane, passage.outcome).inc()
            if passage.held:
                # In a task of its own: before Python 3.11.3 redis-py cannot speak in one that was cancelled.
                settling = asyncio.create_task(self._settle(passage))
                self._settling.add(settling)
                settling.add_done_callback(self._settling.discard)
                if call.write or passage.outcome is not CallOutcome.OK:
                    await asyncio.shield(settling)
                else:
                    await asyncio.sleep(0)  # until it is on its way, before whatever follows

    async def _wait_in_line(self, passage: Passage) -> None:
        patience = self._policy.max_wait
        place, deadline = (passage.call.endpoint, passage.lane), _now() + patience
        line = self._waiting[place] / self._policy.allowance(passage.call.endpoint).rate
        if line > patience:
            raise _overloaded(passage, line)
        self._waiting[place] += 1
        try:
            while (wait := await self._at_the_front(passage, deadline)) > 0:
                await self._sleep(passage, wait, deadline)
        finally:
            self._waiting[place] -= 1

    async def _at_the_front(self, passage: Passage, deadline: float) -> float:
        """Seconds that this call's own object asks it to step aside for; 0 once it is admitted."""
        turn = self._turns[passage.call.endpoint, passage.lane]
        try:
            async with asyncio.timeout_at(deadline):
                await turn.acquire()
        except TimeoutError:
            raise _overloaded(passage, self._policy.max_wait) from None
        try:
            while True:
                wait, why = await self._ask(passage)
                if why in ("", "object"):
                    return wait
                await self._sleep(passage, wait, deadline)
        finally:
            turn.release()

    async def _ask(self, passage: Passage) -> tuple[float, str]:
        if self._closed.is_set():
            raise Leaving
        if self._alone.on:
            return self._alone.ask(first=passage.lane is Lane.CUSTOMER)
        waiting = sum(n for (_, lane), n in self._waiting.items() if lane is passage.lane)
        passage.held = True
        try:
            wait, why = await self._shared.ask(passage, waiting)
        except UNREACHABLE as error:
            passage.held = False
            self._alone.begin(error)
            return self._alone.ask(first=passage.lane is Lane.CUSTOMER)
        passage.held = not why
        return wait, why

    async def _sleep(self, passage: Passage, wait: float, deadline: float) -> None:
        if _now() + wait > deadline:
            raise _overloaded(passage, wait)
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._closed.wait()

    async def _settle(self, passage: Passage) -> None:
        try:
            await self._shared.settle(passage)
        except UNREACHABLE as error:
            self._alone.begin(error)

    def close(self) -> None:
        """Admit no further call of this process: whoever waits or asks is told Leaving at once.

        Calls that were admitted go on to their answers.
        """
        self._closed.set()

    async def settled(self) -> None:
        """Everything that calls held was given back."""
        while self._settling:
            await asyncio.wait(self._settling)

    async def backlog(self) -> dict[Lane, float]:
        """Seconds of one endpoint's rate that wait in each lane, over all processes; 0 without Redis.

        Whoever would add calls of a lane had better leave them where they are durable.
        """
        try:
            waiting = await read_waiting(self._redis)
        except UNREACHABLE:
            waiting = Counter()
        return {lane: waiting[lane] / self._policy.endpoint.rate for lane in Lane}

    async def state(self) -> BudgetState:
        """Who waits, and what each endpoint used so far has left; Unavailable when Redis is away."""
        try:
            return await read_state(self._redis, Lane, self._policy)
        except UNREACHABLE as error:
            raise Unavailable(
                "The queue's server, where Stripe's budget is kept, cannot be reached; try again."
            ) from error


def _overloaded(passage: Passage, wait: float) -> Overloaded:
    return Overloaded(
        f"No room for {passage.call.endpoint} within Stripe's limits for now.",
        retry_after=max(wait, 0.1),
    )


def _now() -> float:
    return asyncio.get_running_loop().time()
