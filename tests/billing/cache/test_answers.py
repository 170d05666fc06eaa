"""Whole answers: given again while everything stands that they were made from, and not a moment longer."""

import time
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from billing.cache import Cache, open_cache
from billing.cache.answers import Answers

LATER = 60.0


@pytest.fixture
async def cache(redis_url: str, redis: Redis) -> AsyncIterator[Cache]:
    """A process's cache."""
    async with open_cache(redis_url) as opened:
        yield opened


async def put(
    answers: Answers[str], cache: Cache, *names: str, key: str = "key", seconds: float = LATER
) -> None:
    """Keep an answer that was made from what stands under *names*."""
    standing = dict(zip(names, await cache.generations(*names), strict=True))
    answers.put(key, f"answer to {key}", standing, until=time.monotonic() + seconds, weight=1_000)


async def test_an_answer_is_given_until_one_of_its_parts_changes(cache: Cache) -> None:
    """By any process, whatever else has not changed."""
    answers: Answers[str] = Answers(cache)
    await put(answers, cache, "cus_1", "in_1", "in_2")
    await cache.forget("cus_2")
    assert await answers.get("key") == "answer to key"
    await cache.forget("in_2")
    assert await answers.get("key") is None


async def test_an_answer_made_from_what_has_changed_since_is_never_given(cache: Cache) -> None:
    """The change came between its reads and its being kept."""
    answers: Answers[str] = Answers(cache)
    (before,) = await cache.generations("cus_1")
    await cache.forget("cus_1")
    answers.put("key", "old", {"cus_1": before}, until=time.monotonic() + LATER, weight=1)
    assert await answers.get("key") is None


async def test_an_answer_has_its_day(cache: Cache) -> None:
    """What no change ends, time does."""
    answers: Answers[str] = Answers(cache)
    await put(answers, cache, "cus_1", seconds=0)
    assert await answers.get("key") is None


async def test_a_lapsed_generation_ends_an_answer(cache: Cache, redis: Redis) -> None:
    """Redis forgetting what stands is no proof that it stands."""
    answers: Answers[str] = Answers(cache)
    await put(answers, cache, "cus_1")
    await redis.flushall()
    assert await answers.get("key") is None


async def test_without_redis_nothing_is_given(cache: Cache) -> None:
    """Nobody can tell whether it is still true."""
    async with open_cache("redis://127.0.0.1:1") as gone:
        answers: Answers[str] = Answers(gone)
        await put(answers, cache, "cus_1")
        assert await answers.get("key") is None


async def test_answers_take_a_bounded_amount(cache: Cache) -> None:
    """The ones not asked for lately go first."""
    answers: Answers[str] = Answers(cache, limit=3_500)
    for key in "abc":
        await put(answers, cache, "cus_1", key=key)
    assert await answers.get("a") == "answer to a"
    await put(answers, cache, "cus_1", key="d")
    kept = {key for key in "abcd" if await answers.get(key)}
    assert kept == {"a", "c", "d"}
