"""Redis: clients by URL (`billing.redis_urls`), awaited replies, translated errors, scripts, pauses after a failure."""

import math
import socket
import ssl
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any, Self, TypeVar, cast

from redis import exceptions
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.commands.core import AsyncScript

from billing.errors import LedgerUnavailable
from billing.redis_urls import (
    CLUSTER_SCHEMES,
    SENTINEL_SCHEMES,
    parse_sentinel_url,
    plain_url,
    scheme_of,
)

UNREACHABLE = (exceptions.RedisError, exceptions.RedisClusterException, OSError)
"""Errors of a server that does not answer; redis-py wraps neither a refused connection nor a lost cluster."""

RETRIED_ERRORS: list[type[Exception]] = [
    OSError,
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.BusyLoadingError,
]
"""``retry_on_error`` of the clients that wait for a server to restart."""

REFUSALS = {
    "Authentication required": "It wants a password; give one in the address, as in redis://:PASSWORD@host:6379/0.",
    "invalid username-password pair": "It refuses the user or the password of the address.",
    "without any password configured": "It has no password; take it out of the address, or set requirepass.",
    "DB index is out of range": "It has no database of the address's number.",
    "no permissions to run": "The user of the address lacks permissions; its ACL needs all commands and keys.",
}
"""Replies of a server that will not go away by waiting, and a sentence for each."""

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

Client = TypeVar("Client", bound=Redis)
T = TypeVar("T")


def client(url: str, client_class: type[Client], **options: Any) -> Client:
    """A client of the server at *url*, or of the server that Sentinel names as the master."""
    options = {"redis_connect_func": handshake, **options}
    if scheme_of(url) == "unix":
        options.pop("socket_keepalive", None)  # a connection by socket takes no such option
    if scheme_of(url) not in SENTINEL_SCHEMES:
        single: Client = client_class.from_url(url, **options)
        return single
    parsed = parse_sentinel_url(url)
    timeouts = {
        option: options[option]
        for option in ("socket_timeout", "socket_connect_timeout")
        if option in options
    }
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        parsed.addresses, sentinel_kwargs={**timeouts, **parsed.sentinel_options}
    )
    master: Client = sentinel.master_for(
        parsed.name,
        redis_class=client_class,
        connection_pool_class=_SentinelPool,
        **{**options, **parsed.master_options},
    )
    return master


def client_or_cluster(url: str, **options: Any) -> Redis | RedisCluster:
    """As `client`, or a client of the cluster at *url*."""
    if scheme_of(url) in CLUSTER_SCHEMES:
        return Cluster.from_url(plain_url(url), **options)
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
    # redis-py would check the connection's health before the first command of its own set-up. Where the server
    # refuses that, it connects anew, and checks again, until the stack ends.
    connection.next_health_check = math.inf
    await connection.on_connect()
    for section in sections:
        await connection.send_command("INFO", section)
    return b"".join([await connection.read_response() for _ in sections])


def ledger_failure(error: LedgerUnavailable) -> str:
    """Return what an operator has to know about *error*, of a ledger that cannot be opened."""
    cause = error.__cause__
    return f"The ledger cannot be opened. {describe_failure(cause)}" if cause else error.message


def describe_failure(error: BaseException | None) -> str:
    """Return a sentence for an operator about the *error* of a server, without anything of its address."""
    if refusal := refusal_of(error):
        return refusal
    causes = list(_chain(error))
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return "The host of the address cannot be found."
    if any(isinstance(cause, exceptions.TimeoutError | TimeoutError) for cause in causes):
        return (
            "It does not answer in time; an address with rediss:// needs a server that speaks TLS."
        )
    if any(isinstance(cause, FileNotFoundError) for cause in causes):
        return "A socket or file that the address names does not exist."
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return "Nothing listens at the address."
    return "It cannot be reached; see that it runs, and whether it speaks TLS (rediss://)."


def refusal_of(error: BaseException | None) -> str | None:
    """Return what a server has against its address, as a sentence with the cure; None if it is only away."""
    for cause in _chain(error):
        if isinstance(cause, ssl.SSLError):
            return (
                f"TLS fails ({cause.reason}); write redis:// if it speaks none, or name its authority with "
                "?ssl_ca_certs=…"
            )
        for text, sentence in REFUSALS.items():
            if text in str(cause):
                return sentence
    return None


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


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
