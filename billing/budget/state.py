"""Keys of the budget in Redis, and its state as operators see it.

The keys share one hash tag, so that one script may touch them on a cluster; losing them is
harmless: buckets then start full at the configured rates.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from redis.asyncio import Redis

from billing.budget.policy import BudgetPolicy, RateLimit
from billing.redis_clients import awaited

TAG = "{stripe}:"
ACCOUNT = TAG + "account"  # hash: rate, tat, cool, cut, throttled, refused, floor:<lane>
READS = TAG + "reads"  # hash: day since 1970 -> reads; 30 days
WAITING = TAG + "waiting"  # hash: process:lane -> count|valid until (ms)
CALLER = TAG + "caller:"  # hash of a caller, a day: tat:<endpoint>, day, reads
ENDPOINTS = TAG + "endpoints"  # set of the endpoints ever called

ALL_ENDPOINTS = "*"
REFUSED_MS = 3_600_000  # a refusal of our key older than that says nothing about today's
STALE_WAITER_MS = 3_600_000  # a process that has not updated its entry for this long has ended


def endpoint_key(name: str) -> str:
    """Hash: as the account's, and the breaker's since, calls, failures, shut, trying."""
    return f"{TAG}endpoint:{name}"


def slots_key(name: str) -> str:
    """Sorted set: permit -> end of its slot (ms)."""
    return f"{TAG}slots:{name}"


def object_key(name: str | None) -> str:
    """Hash, two minutes: holder, held (until), paused (until), times."""
    return f"{TAG}object:{name or ''}"


@dataclass(frozen=True, slots=True)
class EndpointState:
    """An endpoint's current rate, the calls available at once, and the 429s of Stripe's limiter so far."""

    endpoint: str
    per_second: float
    available: float
    throttled: int


@dataclass(frozen=True, slots=True)
class BudgetState:
    """The state of the budget over all processes.

    *lanes* by priority with their waiting calls, *reads_used* of the *read_allowance* in the last 30 days,
    *limited_until* the end of the last pause after a refusal of Stripe's. *key_refused*: the endpoints, or "*",
    for which Stripe refuses our key.
    """

    lanes: tuple[tuple[str, int], ...]
    endpoints: tuple[EndpointState, ...]
    limited_until: datetime | None
    reads_used: int
    read_allowance: int
    key_refused: tuple[str, ...] = ()


async def read_state(redis: Redis, lanes: Iterable[str], policy: BudgetPolicy) -> BudgetState:
    """The state of every endpoint called so far."""
    names = sorted(name.decode() for name in await awaited(redis.smembers(ENDPOINTS)))
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
            _endpoint(name, bucket, now, policy.rate_limit(name))
            for name, bucket in zip(names, buckets[1:], strict=True)
        ),
        limited_until=_limited_until(buckets, now),
        reads_used=sum(map(int, reads)),
        read_allowance=policy.read_ration,
        key_refused=tuple(
            name
            for name, bucket in zip((ALL_ENDPOINTS, *names), buckets, strict=True)
            if float(bucket.get(b"refused", 0)) > now - REFUSED_MS
        ),
    )


async def read_waiting(redis: Redis) -> Counter[str]:
    """Waiting calls of each lane over all processes; removes the entries of ended processes."""
    async with redis.pipeline(transaction=False) as pipe:
        pipe.time()
        pipe.hgetall(WAITING)
        (seconds, micros), waiting = await pipe.execute()
    now = seconds * 1000 + micros / 1000
    oldest = now - STALE_WAITER_MS
    if stale := [waiter for waiter, value in waiting.items() if _valid_until(value) < oldest]:
        await awaited(redis.hdel(WAITING, *stale))
    return _waiting(waiting, now)


def _waiting(values: Mapping[bytes, bytes], now: float) -> Counter[str]:
    counts: Counter[str] = Counter()
    for waiter, value in values.items():
        if _valid_until(value) > now:
            counts[waiter.decode().partition(":")[2]] += int(value.partition(b"|")[0])
    return counts


def _valid_until(value: bytes) -> float:
    return float(value.partition(b"|")[2])


def _endpoint(
    name: str, bucket: Mapping[bytes, bytes], now: float, full: RateLimit
) -> EndpointState:
    rate = min(float(bucket.get(b"rate", full.rate)), full.rate)
    spent = max(float(bucket.get(b"tat", 0)) - now, 0) / 1000 * rate
    return EndpointState(
        endpoint=name,
        per_second=rate,
        available=max(full.burst - 1 - spent, 0),
        throttled=int(bucket.get(b"throttled", 0)),
    )


def _limited_until(buckets: Sequence[Mapping[bytes, bytes]], now: float) -> datetime | None:
    ends = [float(bucket.get(field, 0)) for bucket in buckets for field in (b"cool", b"shut")]
    latest = max(ends, default=0.0)
    return datetime.fromtimestamp(latest / 1000, UTC) if latest > now else None
