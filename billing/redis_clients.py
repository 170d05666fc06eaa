"""Redis: clients by URL, awaited replies, translated errors, scripts, and pauses after a failure.

A URL names one server, a master that Sentinel knows, or a cluster:

    redis://host:6379/0                                one server (rediss:// over TLS, unix:// by socket)
    redis+sentinel://one:26379,two:26379/name/0        the master that the Sentinels call *name*
    redis+cluster://host:6379                          a cluster, by any of its servers

User and password in a URL are the servers'; rediss+sentinel:// and rediss+cluster:// are over TLS.
"""

import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any, Self, TypeVar, cast
from urllib.parse import parse_qs, unquote, urlsplit

from redis import exceptions
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import AbstractConnection, parse_url
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.commands.core import AsyncScript

from billing.errors import LedgerUnavailable

UNREACHABLE = (exceptions.RedisError, exceptions.RedisClusterException, OSError)
"""Errors of a server that does not answer; redis-py wraps neither a refused connection nor a lost cluster."""

RETRIED_ERRORS: list[type[Exception]] = [
    OSError,
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.BusyLoadingError,
]
"""``retry_on_error`` of the clients that wait for a server to restart."""

LUA_COMMON = """\
local function now_us()
    local time = redis.call('TIME')
    return time[1] * 1000000 + time[2]
end
local function now_ms()
    return math.floor(now_us() / 1000)
end
local function require_whole_slot(key)
    local tag = string.match(key, '^{[^}]*}')
    redis.call('EXISTS', tag .. ':absent', tag .. ':absent too')
end
"""
"""Begins every script: the server's time, as microseconds and as milliseconds since 1970; and a guard.

While a cluster moves a slot key by key, a script fails at the first key that is absent or elsewhere, and
what it wrote before stays. ``require_whole_slot``, called before anything else, fails on either side of such
a move, because a command on two absent keys does.
"""

SINGLE_SCHEMES = frozenset({"redis", "rediss", "unix"})
SENTINEL_SCHEMES = frozenset({"redis+sentinel", "rediss+sentinel"})
CLUSTER_SCHEMES = frozenset({"redis+cluster", "rediss+cluster"})
SENTINEL_PORT = 26379

Client = TypeVar("Client", bound=Redis)
T = TypeVar("T")


def is_redis_url(url: str, schemes: frozenset[str]) -> bool:
    """True for a valid URL with one of *schemes*."""
    if _scheme(url) not in schemes:
        return False
    try:
        if _scheme(url) in SENTINEL_SCHEMES:
            addresses, name, _ = _parse_sentinel_url(url)
            return bool(addresses and name)
        return bool(parse_url(_plain_url(url)))
    except ValueError:
        return False


def client(url: str, client_class: type[Client], **options: Any) -> Client:
    """A client of the server at *url*, or of the server that Sentinel names as the master."""
    if _scheme(url) not in SENTINEL_SCHEMES:
        single: Client = client_class.from_url(url, **options)
        return single
    addresses, name, server_options = _parse_sentinel_url(url)
    timeouts = {
        option: options[option]
        for option in ("socket_timeout", "socket_connect_timeout")
        if option in options
    }
    sentinel = Sentinel(addresses, sentinel_kwargs=timeouts)  # type: ignore[no-untyped-call]
    master: Client = sentinel.master_for(
        name,
        redis_class=client_class,
        connection_pool_class=_SentinelPool,
        **server_options,
        **options,
    )
    return master


def client_or_cluster(url: str, **options: Any) -> Redis | RedisCluster:
    """As `client`, or a client of the cluster at *url*."""
    if _scheme(url) in CLUSTER_SCHEMES:
        return Cluster.from_url(_plain_url(url), **options)
    return client(url, Redis, **options)


async def awaited(command: Awaitable[T] | T) -> T:
    """The reply to an asyncio *command*, which redis-py 5.3 types as ``Awaitable[T] | T``."""
    return await cast("Awaitable[T]", command)


@contextmanager
def ledger_errors(message: str) -> Iterator[None]:
    """Translate errors of the ledger's server in the block into LedgerUnavailable with *message*."""
    try:
        yield
    except UNREACHABLE as error:
        raise LedgerUnavailable(message) from error


def script_source(package: str, *names: str) -> str:
    """The Lua text of ``scripts/<name>.lua`` of *package*, one after another, after ``LUA_COMMON``."""
    folder = files(package) / "scripts"
    return LUA_COMMON + "".join(folder.joinpath(f"{name}.lua").read_text() for name in names)


def load_script(redis: Redis | RedisCluster, package: str, name: str) -> AsyncScript:
    """The Lua script ``scripts/<name>.lua`` of *package*, run by *redis*."""
    source = script_source(package, name)
    # RedisCluster has this method too, but its types lack it.
    return cast("Redis", redis).register_script(source)


async def handshake(connection: AbstractConnection, *sections: str) -> bytes:
    """Set up a new connection, as a ``redis_connect_func`` has to; the server's INFO *sections*."""
    await connection.on_connect()
    for section in sections:
        await connection.send_command("INFO", section)
    return b"".join([await connection.read_response() for _ in sections])


class Cluster(RedisCluster):
    """A client that finds its cluster again.

    redis-py 5 drops each node that fails from those by which it looks for the cluster, and once none is left
    it fails until the process ends.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._seeds = dict(self.nodes_manager.startup_nodes)
        self._nodes = self._seeds

    async def initialize(self) -> Self:
        """Learn the nodes of the cluster from any that was ever configured, or answered last."""
        manager = self.nodes_manager
        manager.startup_nodes = {**self._seeds, **self._nodes, **manager.startup_nodes}
        await super().initialize()
        self._nodes = dict(manager.nodes_cache)
        return self


class Cooldown:
    """A pause after a failure, so that an unresponsive server delays one call in a while, not every one."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ends_at = 0.0

    @property
    def active(self) -> bool:
        """True during the pause."""
        return time.monotonic() < self._ends_at

    def start(self) -> None:
        """Start the pause anew."""
        self._ends_at = time.monotonic() + self._seconds


class _SentinelPool(SentinelConnectionPool):
    """Also closes the connections to the Sentinels, which redis-py leaves open."""

    async def disconnect(self, inuse_connections: bool = True) -> None:
        await super().disconnect(inuse_connections)
        if inuse_connections:
            for sentinel in self.sentinel_manager.sentinels:
                await sentinel.aclose()


def _scheme(url: str) -> str:
    return url.partition("://")[0]


def _plain_url(url: str) -> str:
    return url.replace("+cluster://", "://", 1)


def _parse_sentinel_url(url: str) -> tuple[list[tuple[str, int]], str, dict[str, Any]]:
    """The Sentinels' addresses, their name for the master, and its connection options; or a ValueError."""
    parts = urlsplit(url)
    login, _, hosts = parts.netloc.rpartition("@")
    name, _, db = parts.path.lstrip("/").partition("/")
    if parse_qs(parts.query):
        raise ValueError("a Sentinel's address has no options")
    username, _, password = login.partition(":")
    options: dict[str, Any] = {"db": int(db or 0)}
    if login:
        options |= {"username": unquote(username) or None, "password": unquote(password) or None}
    if parts.scheme.startswith("rediss"):
        options["ssl"] = True
    return [_host_and_port(host) for host in hosts.split(",") if host], name, options


def _host_and_port(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("a Sentinel has a host")
    return parts.hostname, parts.port or SENTINEL_PORT
