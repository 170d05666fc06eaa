"""One allowance of Stripe calls, shared by every process: who may call now, and who waits how long.

Admission is one script and one round trip (``budget_scripts/admit.lua``), all or nothing, over

- a rate for the account and a rate for each endpoint, which shrink and recover with Stripe's answers,
- slots for list calls, because Stripe limits slow calls by concurrency,
- one mutation at a time for each object,
- a ration of reads over 30 days,
- a breaker for each endpoint that fails.

Lanes share the rates by priority, each with a floor that nobody above can take. Within a process a
lane's calls to one endpoint wait in line, so that only the first of them asks Redis. When Redis
cannot be reached each process goes on alone at ``LOCAL_RATE``.
"""

import asyncio
import random
import secrets
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

import orjson
import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from billing.errors import Overloaded
from billing.redis_reply import reply
from billing.settings import Settings
from billing.stripe_endpoints import Call

log = structlog.get_logger(__name__)

SCRIPTS = Path(__file__).with_name("budget_scripts")
FLOOR = 0.05  # of a rate, for each lane, whatever happens in the lanes above
LEASE_MS = 60_000  # longer than the longest call: what a killed process held comes back
POLL_MS = 25  # while another call holds a slot or an object: its end cannot be computed
BREAKER_PAUSE_MS = 30_000
LOCAL_RATE = 2.0  # calls per second of one process without Redis: 40 of them stay within 80/s
LOCAL_SECONDS = 1.0  # how long Redis is left alone after it could not be reached


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
    """How an admitted call ended, as far as the budget cares."""

    ABANDONED = "abandoned"
    OK = "ok"
    LIMITED = "limited"
    LIMITED_GLOBALLY = "limited_globally"
    LOCKED = "locked"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Allowance:
    """A rate per second that we keep to, and how many calls may come at once on top of it."""

    rate: float
    burst: float

    @classmethod
    def within(cls, limit: float, share: float) -> Self:
        """The *share* of Stripe's *limit* as a rate; the rest is the burst, so that any second fits."""
        return cls(rate=limit * share, burst=max(2.0, limit * (1 - share)))


@dataclass(frozen=True, slots=True)
class BudgetPolicy:
    """What may be spent; *max_wait* in seconds, *reads* in 30 days, *lists* at the same time."""

    account: Allowance
    endpoint: Allowance
    lists: int
    reads: int
    max_wait: float

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The policy that the operator set."""
        return cls(
            account=Allowance.within(settings.stripe_rate, settings.stripe_share),
            endpoint=Allowance.within(settings.stripe_endpoint_rate, settings.stripe_share),
            lists=settings.stripe_list_concurrency,
            reads=settings.stripe_read_allowance,
            max_wait=settings.stripe_max_wait,
        )


@dataclass(slots=True)
class Passage:
    """One call's way past Stripe's limits; whoever makes the call says how it ended."""

    call: Call
    lane: Lane
    permit: str = field(default_factory=lambda: secrets.token_hex(8))
    outcome: Outcome = Outcome.ABANDONED
    held: bool = False


@dataclass(frozen=True, slots=True)
class EndpointState:
    """An endpoint's present rate, the calls it would take at once, and the limiter's refusals so far."""

    endpoint: str
    per_second: float
    available: float
    throttled: int


@dataclass(frozen=True, slots=True)
class BudgetState:
    """The shared allowance at one moment, over all processes; *reads* of the last 30 days."""

    lanes: tuple[tuple[Lane, int], ...]
    endpoints: tuple[EndpointState, ...]
    limited_until: datetime | None
    reads: int


class Budget:
    """The allowance kept in *redis*; its keys share one hash tag and may be lost without harm."""

    def __init__(self, redis: Redis, policy: BudgetPolicy) -> None:
        self._redis = redis
        self._policy = policy
        self._waiter = secrets.token_hex(4)
        self._admit_script = redis.register_script((SCRIPTS / "admit.lua").read_text())
        self._settle_script = redis.register_script((SCRIPTS / "settle.lua").read_text())
        self._turns: defaultdict[tuple[str, Lane], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._waiting: Counter[tuple[str, Lane]] = Counter()
        self._alone = _Alone()

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
            await self._wait_in_line(passage, asyncio.get_running_loop().time() + patience)
            yield passage
        finally:
            if passage.held:
                await self._settle(passage)

    async def _wait_in_line(self, passage: Passage, deadline: float) -> None:
        place = (passage.call.endpoint, passage.lane)
        if self._waiting[place] / self._policy.endpoint.rate > deadline - _now():
            raise _overloaded(passage, self._waiting[place] / self._policy.endpoint.rate)
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
            return self._alone.ask(passage.lane)
        passage.held = True
        try:
            answer: list[bytes] = await reply(
                self._admit_script(keys=_keys(passage), args=[self._question(passage)]),
            )
        except (RedisError, OSError) as error:
            passage.held = False
            self._alone.begin(error)
            return self._alone.ask(passage.lane)
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
                "lease": LEASE_MS,
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

    async def state(self) -> BudgetState:
        """Who waits, and what each endpoint used so far has left; RedisError when Redis is away."""
        names = sorted(each.decode() for each in await reply(self._redis.smembers(ENDPOINTS)))
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.hgetall(WAITING)
            pipe.hvals(READS)
            for key in (ACCOUNT, *map(_endpoint, names)):
                pipe.hgetall(key)
            (seconds, micros), waiting, reads, *buckets = await pipe.execute()
        now = seconds * 1000 + micros / 1000
        return BudgetState(
            lanes=_lanes(waiting, now),
            endpoints=tuple(
                _endpoint_state(name, self._policy.endpoint, bucket, now)
                for name, bucket in zip(names, buckets[1:], strict=True)
            ),
            limited_until=_limited_until(buckets, now),
            reads=sum(map(int, reads)),
        )


class _Alone:
    """The fallback without Redis: a small rate of this process's own, a second call ahead for customers."""

    def __init__(self) -> None:
        self._until = 0.0
        self._spent = 0.0

    @property
    def on(self) -> bool:
        return _now() < self._until

    def begin(self, error: Exception) -> None:
        log.warning("budget.alone", error=type(error).__name__)
        self._until = _now() + LOCAL_SECONDS

    def ask(self, lane: Lane) -> tuple[float, str]:
        now, cell = _now(), 1 / LOCAL_RATE
        wait = max(self._spent, now) - now - (cell if lane is Lane.CUSTOMER else 0)
        if wait > 0:
            return wait, "alone"
        self._spent = max(self._spent, now) + cell
        return 0, ""


TAG = "{stripe}:"
ACCOUNT = TAG + "account"  # hash: rate, tat, cool, cut, throttled, floor:<lane>
READS = TAG + "reads"  # hash: day since 1970 -> reads; 30 days
WAITING = TAG + "waiting"  # hash: process:lane -> how many|until when that is true (ms)
ENDPOINTS = TAG + "endpoints"  # set of the endpoints ever called


def _endpoint(name: str) -> str:
    """Hash: as the account's, and the breaker's since, calls, failures, shut, trying."""
    return f"{TAG}endpoint:{name}"


def _slots(name: str) -> str:
    """Sorted set: permit -> until when it holds a slot (ms)."""
    return f"{TAG}slots:{name}"


def _object(name: str | None) -> str:
    """Hash, two minutes: holder, held (until), paused (until), times."""
    return f"{TAG}object:{name or ''}"


def _keys(passage: Passage) -> list[str]:
    name = passage.call.endpoint
    lock = _object(passage.call.object)
    return [ACCOUNT, _endpoint(name), _slots(name), lock, READS, WAITING, ENDPOINTS]


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


def _lanes(waiting: Mapping[bytes, bytes], now: float) -> tuple[tuple[Lane, int], ...]:
    counts: Counter[Lane] = Counter()
    for waiter, told in waiting.items():
        number, _, until = told.partition(b"|")
        if float(until) > now:
            counts[Lane(waiter.decode().partition(":")[2])] += int(number)
    return tuple((lane, counts[lane]) for lane in Lane)


def _endpoint_state(
    name: str,
    allowance: Allowance,
    bucket: Mapping[bytes, bytes],
    now: float,
) -> EndpointState:
    rate = min(float(bucket.get(b"rate", allowance.rate)), allowance.rate)
    spent = max(float(bucket.get(b"tat", 0)) - now, 0) / 1000 * rate
    return EndpointState(
        endpoint=name,
        per_second=rate,
        available=max(allowance.burst - 1 - spent, 0),
        throttled=int(bucket.get(b"throttled", 0)),
    )


def _limited_until(buckets: Sequence[Mapping[bytes, bytes]], now: float) -> datetime | None:
    marks: list[Any] = [bucket.get(mark) for bucket in buckets for mark in (b"cool", b"shut")]
    latest = max((float(mark) for mark in marks if mark), default=0.0)
    return datetime.fromtimestamp(latest / 1000, UTC) if latest > now else None
