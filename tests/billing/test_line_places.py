"""A line's id alone leads to its invoice, and to whose it is."""

from redis.asyncio import Redis

from billing.line_places import LinePlaces


async def test_a_line_that_was_shown_is_found_by_any_process(redis: Redis) -> None:
    """Support pastes it into another gateway than the one that the panel asked."""
    await LinePlaces(redis).remember("in_1", "cus_1", ["il_1", "il_2"])

    assert await LinePlaces(redis).place_of("il_2") == ("in_1", "cus_1")
    assert await LinePlaces(redis).place_of("il_3") is None
    await redis.set("line:il_4", "in_1")  # as a gateway wrote it that noted no customer
    assert await LinePlaces(redis).place_of("il_4") is None


async def test_a_page_shown_again_costs_nothing(redis: Redis) -> None:
    """A panel asks for the same draft all day."""
    places = LinePlaces(redis)
    await places.remember("in_1", "cus_1", ["il_1"])
    await redis.flushall()

    await places.remember("in_1", "cus_1", ["il_1"])

    assert await redis.dbsize() == 0


async def test_without_its_redis_a_line_is_just_not_found() -> None:
    """It is a convenience: nothing may fail for want of it."""
    async with Redis.from_url("redis://127.0.0.1:1/0") as nobody:
        places = LinePlaces(nobody)
        await places.remember("in_1", "cus_1", ["il_1"])

        assert await places.place_of("il_1") is None
