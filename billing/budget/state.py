"""What the budget keeps in Redis, and what an operator sees of it.

The keys share one hash tag, so that one script may touch them on a cluster; all of them may be lost
without harm: buckets then start full at the configured rates.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from redis.asyncio import Redis

from billing.budget.policy import Allowance, BudgetPolicy
from billing.redis_reply import reply

TAG = "{stripe}:"
ACCOUNT = TAG + "account"  # hash: rate, tat, cool, cut, throttled, floor:<lane>
READS = TAG + "reads"  # hash: day since 1970 -> reads; 30 days
WAITING = TAG + "waiting"  # hash: process:lane -> how many|until when that is true (ms)
ENDPOINTS = TAG + "endpoints"  # set of the endpoints ever called

FORGOTTEN_MS = 3_600_000  # a process that has not said for so long that it waits has ended


def endpoint_key(name: str) -> str:
    """Hash: as the account's, and the breaker's since, calls, failures, shut, trying."""
    return f"{TAG}endpoint:{name}"


def slots_key(name: str) -> str:
    """Sorted set: permit -> until when it holds a slot (ms)."""
    return f"{TAG}slots:{name}"


def object_key(name: str | None) -> str:
    """Hash, two minutes: holder, held (until), paused (until), times."""
    return f"{TAG}object:{name or ''}"


@dataclass(frozen=True, slots=True)
class EndpointState:
    """An endpoint's present rate, the calls it would take at once, and the limiter's refusals so far."""

    endpoint: str
    per_second: float
    available: float
    throttled: int


@dataclass(frozen=True, slots=True)
class BudgetState:
    """The shared allowance at one moment, over all processes.

    *lanes* by priority with the calls that wait in each, *reads* those of the last 30 days of the
    *read_allowance* for them, *limited_until* when the last of Stripe's present refusals ends.
    """

    lanes: tuple[tuple[str, int], ...]
    endpoints: tuple[EndpointState, ...]
    limited_until: datetime | None
    reads: int
    read_allowance: int


async def read_state(redis: Redis, lanes: Iterable[str], policy: BudgetPolicy) -> BudgetState:
    """The state of every endpoint called so far."""
    names = sorted(each.decode() for each in await reply(redis.smembers(ENDPOINTS)))
    async with redis.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.hgetall(WAITING)
        pipe.hvals(READS)
        for key in (ACCOUNT, *map(endpoint_key, names)):
            pipe.hgetall(key)
        (seconds, micros), waiting, reads, *buckets = await pipe.execute()
    now = seconds * 1000 + micros / 1000
    counts = _waiting(waiting, now)
    return BudgetState(
        lanes=tuple((lane, counts[lane]) for lane in lanes),
        endpoints=tuple(
            _endpoint(name, bucket, now, policy.allowance(name))
            for name, bucket in zip(names, buckets[1:], strict=True)
        ),
        limited_until=_limited_until(buckets, now),
        reads=sum(map(int, reads)),
        read_allowance=policy.reads,
    )


async def read_waiting(redis: Redis) -> Counter[str]:
    """How many calls wait in each lane, over all processes; those that ended in line are forgotten."""
    async with redis.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.hgetall(WAITING)
        (seconds, micros), waiting = await pipe.execute()
    now = seconds * 1000 + micros / 1000
    gone = [waiter for waiter, told in waiting.items() if _until(told) < now - FORGOTTEN_MS]
    if gone:
        await reply(redis.hdel(WAITING, *gone))
    return _waiting(waiting, now)


def _waiting(told: Mapping[bytes, bytes], now: float) -> Counter[str]:
    counts: Counter[str] = Counter()
    for waiter, value in told.items():
        if _until(value) > now:
            counts[waiter.decode().partition(":")[2]] += int(value.partition(b"|")[0])
    return counts


def _until(told: bytes) -> float:
    return float(told.partition(b"|")[2])


def _endpoint(
    name: str, bucket: Mapping[bytes, bytes], now: float, full: Allowance
) -> EndpointState:
    present = min(float(bucket.get(b"rate", full.rate)), full.rate)
    spent = max(float(bucket.get(b"tat", 0)) - now, 0) / 1000 * present
    return EndpointState(
        endpoint=name,
        per_second=present,
        available=max(full.burst - 1 - spent, 0),
        throttled=int(bucket.get(b"throttled", 0)),
    )


def _limited_until(buckets: Sequence[Mapping[bytes, bytes]], now: float) -> datetime | None:
    marks = [float(bucket.get(mark, 0)) for bucket in buckets for mark in (b"cool", b"shut")]
    latest = max(marks, default=0.0)
    return datetime.fromtimestamp(latest / 1000, UTC) if latest > now else None
