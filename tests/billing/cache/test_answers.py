"""Response store: a response is served only while the generations it was made from are current."""

import time
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from billing.cache import Cache, open_cache
from billing.cache.answers import ResponseStore

LATER = 60.0


@pytest.fixture
async def cache(redis_url: str, redis: Redis) -> AsyncIterator[Cache]:
    """The cache of one process."""
    async with open_cache(redis_url) as opened:
        yield opened


async def put(
    store: ResponseStore[str], cache: Cache, *names: str, key: str = "key", seconds: float = LATER
) -> None:
    """Store a response made from the current state of *names*."""
    generations = dict(zip(names, await cache.generations(*names), strict=True))
    store.put(
        key, f"response to {key}", generations, expires_at=time.monotonic() + seconds, weight=1_000
    )


async def test_response_is_served_until_a_generation_changes(cache: Cache) -> None:
    """A change by any process ends it; changes of other objects do not."""
    store: ResponseStore[str] = ResponseStore(cache)
    await put(store, cache, "cus_1", "in_1", "in_2")
    await cache.invalidate("cus_2")
    assert await store.get("key") == "response to key"
    await cache.invalidate("in_2")
    assert await store.get("key") is None


async def test_response_made_before_a_change_is_not_served(cache: Cache) -> None:
    """The change came between its reads and its being stored."""
    store: ResponseStore[str] = ResponseStore(cache)
    (before,) = await cache.generations("cus_1")
    await cache.invalidate("cus_1")
    store.put("key", "old", {"cus_1": before}, expires_at=time.monotonic() + LATER, weight=1)
    assert await store.get("key") is None


async def test_response_expires(cache: Cache) -> None:
    """A response without changes is still limited in time."""
    store: ResponseStore[str] = ResponseStore(cache)
    await put(store, cache, "cus_1", seconds=0)
    assert await store.get("key") is None


async def test_expired_generation_invalidates_a_response(cache: Cache, redis: Redis) -> None:
    """A generation that Redis has lost cannot be verified."""
    store: ResponseStore[str] = ResponseStore(cache)
    await put(store, cache, "cus_1")
    await redis.flushall()
    assert await store.get("key") is None


async def test_no_response_is_served_without_redis(cache: Cache) -> None:
    """Generations cannot be verified."""
    async with open_cache("redis://127.0.0.1:1") as unreachable:
        store: ResponseStore[str] = ResponseStore(unreachable)
        await put(store, cache, "cus_1")
        assert await store.get("key") is None


async def test_store_evicts_the_least_recently_used_response(cache: Cache) -> None:
    """Memory is bounded."""
    store: ResponseStore[str] = ResponseStore(cache, limit=3_500)
    for key in "abc":
        await put(store, cache, "cus_1", key=key)
    assert await store.get("a") == "response to a"
    await put(store, cache, "cus_1", key="d")
    stored = {key for key in "abcd" if await store.get(key)}
    assert stored == {"a", "c", "d"}
