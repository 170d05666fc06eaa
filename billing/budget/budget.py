"""One allowance of Stripe calls, shared by every process: who may call now, and who waits how long.

Admission is one script and one round trip (``scripts/admit.lua``), all or nothing, over

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
import random
import secrets
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import orjson
import structlog
from prometheus_client import Counter as Count
from prometheus_client import Histogram
from redis.asyncio import Redis
from redis.exceptions import RedisError

from billing.budget.alone import Alone
from billing.budget.policy import Allowance, BudgetPolicy
from billing.budget.state import (
    ACCOUNT,
    ENDPOINTS,
    READS,
    WAITING,
    BudgetState,
    endpoint_key,
    object_key,
    read_state,
    read_waiting,
    slots_key,
)
from billing.errors import Overloaded
from billing.redis_reply import reply
from billing.stripe_endpoints import Call

log = structlog.get_logger(__name__)

SCRIPTS = Path(__file__).with_name("scripts")
FLOOR = 0.05  # of a rate, for each lane, whatever happens in the lanes above
POLL_MS = 25  # while another call holds a slot or an object: its end cannot be computed
BREAKER_PAUSE_MS = 30_000


WAITED = Histogram(
    "billing_stripe_wait_seconds", "Waiting for room within Stripe's limits.", ["lane"]
)
CALLS = Count("billing_stripe_calls", "Calls that asked for room.", ["endpoint", "lane", "outcome"])


class Lane(StrEnum):
    """Who goes first; earlier members before later ones."""

    CUSTOMER = "customer"
    SUPPORT = "support"
    CLOSE = "close"
    INTERVAL = "interval"
    BACKGROUND = "background"


REACH: Mapping[Lane, float] = {
    Lane.CUSTOMER: 1.0,
    Lane.SUPPORT: 0.8,
    Lane.CLOSE: 0.6,
    Lane.INTERVAL: 0.3,
    Lane.BACKGROUND: 0.0,
}
"""How far into the burst a lane may spend; a lane below runs dry before the one above does."""

READ_SHARE: Mapping[Lane, float] = {Lane.INTERVAL: 1.0, Lane.BACKGROUND: 0.8}
"""At which part of the read ration a lane's reads stop; those of the other lanes never do."""


class Outcome(StrEnum):
    """How a call ended, as far as the budget cares: not admitted, given up by its caller, or answered."""

    OVERLOADED = "overloaded"
    ABANDONED = "abandoned"
    OK = "ok"
    LIMITED = "limited"
    LIMITED_GLOBALLY = "limited_globally"
    LOCKED = "locked"
    FAILED = "failed"


@dataclass(slots=True)
class Passage:
    """One call's way past Stripe's limits; whoever makes the call says how it ended."""

    call: Call
    lane: Lane
    permit: str = field(default_factory=lambda: secrets.token_hex(8))
    outcome: Outcome = Outcome.OVERLOADED
    held: bool = False


class Budget:
    """The allowance kept in *redis* (any but an evicting one; losing it costs one burst)."""

    def __init__(self, redis: Redis, policy: BudgetPolicy) -> None:
        self._redis = redis
        self._policy = policy
        self._waiter = secrets.token_hex(4)
        self._admit_script = redis.register_script((SCRIPTS / "admit.lua").read_text())
        self._settle_script = redis.register_script((SCRIPTS / "settle.lua").read_text())
        self._turns: defaultdict[tuple[str, Lane], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._waiting: Counter[tuple[str, Lane]] = Counter()
        self._alone = Alone()

    @asynccontextmanager
    async def admission(
        self,
        call: Call,
        lane: Lane,
        *,
        max_wait: float | None = None,
    ) -> AsyncIterator[Passage]:
        """Wait until *call* may be made, and hold what it needs while it is made.

        Overloaded when that takes longer than *max_wait* seconds (default: the policy's): nothing
        was sent, and ``retry_after`` says when there may be room. A cancelled wait gives everything
        back.
        """
        passage = Passage(call, lane)
        patience = self._policy.max_wait if max_wait is None else max_wait
        try:
            with WAITED.labels(lane).time():
                await self._wait_in_line(passage, patience)
            passage.outcome = Outcome.ABANDONED
            yield passage
        finally:
            CALLS.labels(call.endpoint, lane, passage.outcome).inc()
            if passage.held:
                await self._settle(passage)

    async def _wait_in_line(self, passage: Passage, patience: float) -> None:
        place, deadline = (passage.call.endpoint, passage.lane), _now() + patience
        line = self._waiting[place] / self._policy.endpoint.rate
        if line > patience:
            raise _overloaded(passage, line)
        self._waiting[place] += 1
        try:
            while (wait := await self._at_the_front(passage, deadline)) > 0:
                await _sleep(passage, wait, deadline)
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
                await _sleep(passage, wait, deadline)
        finally:
            turn.release()

    async def _ask(self, passage: Passage) -> tuple[float, str]:
        if self._alone.on:
            return self._alone.ask(first=passage.lane is Lane.CUSTOMER)
        passage.held = True
        try:
            answer: list[bytes] = await reply(
                self._admit_script(keys=_keys(passage), args=[self._question(passage)]),
            )
        except (RedisError, OSError) as error:
            passage.held = False
            self._alone.begin(error)
            return self._alone.ask(first=passage.lane is Lane.CUSTOMER)
        passage.held = not answer[1]
        return float(answer[0]) / 1000, answer[1].decode()

    def _question(self, passage: Passage) -> bytes:
        policy, call, lane = self._policy, passage.call, passage.lane
        waiting = sum(number for (_, each), number in self._waiting.items() if each is lane)
        return orjson.dumps(
            {
                "permit": passage.permit,
                "name": call.endpoint,
                "lane": lane,
                "probes": lane is Lane.CUSTOMER,
                "reach": REACH[lane],
                "floor": FLOOR,
                "account": _numbers(policy.account),
                "endpoint": _numbers(policy.endpoint),
                # The last slot is left to customers.
                "slots": policy.lists - (lane is not Lane.CUSTOMER) if call.lists else 0,
                "object": call.object or False,
                "read": not call.write,
                "reads": int(policy.reads * READ_SHARE.get(lane, 0)),
                "waiter": f"{self._waiter}:{lane}",
                "waiting": waiting,
                "lease": policy.lease_ms,
                "pause": BREAKER_PAUSE_MS,
                "poll": POLL_MS,
            },
        )

    async def _settle(self, passage: Passage) -> None:
        told = {
            "permit": passage.permit,
            "outcome": passage.outcome,
            "account": self._policy.account.rate,
            "endpoint": self._policy.endpoint.rate,
            "slots": self._policy.lists if passage.call.lists else 0,
            "object": passage.call.object or False,
            "jitter": random.random(),  # noqa: S311 spreads retries, guards nothing
            "pause": BREAKER_PAUSE_MS,
        }
        try:
            await reply(self._settle_script(keys=_keys(passage)[:4], args=[orjson.dumps(told)]))
        except (RedisError, OSError) as error:
            self._alone.begin(error)

    async def backlog(self, lane: Lane) -> float:
        """Seconds of one endpoint's rate that wait in *lane*, over all processes; 0 without Redis.

        Whoever would add calls of that lane had better leave them where they are durable.
        """
        try:
            waiting = await read_waiting(self._redis)
        except (RedisError, OSError):
            return 0.0
        return waiting[lane] / self._policy.endpoint.rate

    async def state(self) -> BudgetState:
        """Who waits, and what each endpoint used so far has left; RedisError when Redis is away."""
        endpoint = self._policy.endpoint
        return await read_state(self._redis, Lane, endpoint.rate, endpoint.burst)


def _keys(passage: Passage) -> list[str]:
    name = passage.call.endpoint
    lock = object_key(passage.call.object)
    return [ACCOUNT, endpoint_key(name), slots_key(name), lock, READS, WAITING, ENDPOINTS]


def _numbers(allowance: Allowance) -> dict[str, float]:
    return {"rate": allowance.rate, "burst": allowance.burst}


def _overloaded(passage: Passage, wait: float) -> Overloaded:
    return Overloaded(
        f"No room for {passage.call.endpoint} within Stripe's limits for now.",
        retry_after=max(wait, 0.1),
    )


async def _sleep(passage: Passage, wait: float, deadline: float) -> None:
    if _now() + wait > deadline:
        raise _overloaded(passage, wait)
    await asyncio.sleep(wait)


def _now() -> float:
    return asyncio.get_running_loop().time()
