"""A client by its server's address: one server, the master that Sentinel names, or a cluster.

    redis://host:6379/0                                one server (rediss:// over TLS, unix:// by socket)
    redis+sentinel://one:26379,two:26379/name/0        the master that the Sentinels call *name*
    redis+cluster://host:6379                          a cluster, by any of its servers

A user and password in an address are the servers'; rediss+sentinel:// and rediss+cluster:// are over TLS.
"""

from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import parse_url
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool

ONE = frozenset({"redis", "rediss", "unix"})
SENTINEL = frozenset({"redis+sentinel", "rediss+sentinel"})
CLUSTER = frozenset({"redis+cluster", "rediss+cluster"})
SENTINEL_PORT = 26379

Client = TypeVar("Client", bound=Redis)


def is_address(url: str, kinds: frozenset[str]) -> bool:
    """Whether *url* is an address of one of *kinds*."""
    if _kind(url) not in kinds:
        return False
    try:
        if _kind(url) in SENTINEL:
            sentinels, name, _ = _sentinels(url)
            return bool(sentinels and name)
        return bool(parse_url(_plain(url)))
    except ValueError:
        return False


def server(url: str, client: type[Client], **options: Any) -> Client:
    """A *client* of the one server at *url*, or of whichever server Sentinel says is the master now."""
    if _kind(url) not in SENTINEL:
        found: Client = client.from_url(url, **options)
        return found
    sentinels, name, of_server = _sentinels(url)
    watch = {
        each: options[each]
        for each in ("socket_timeout", "socket_connect_timeout")
        if each in options
    }
    watchers = Sentinel(sentinels, sentinel_kwargs=watch)  # type: ignore[no-untyped-call]
    master: Client = watchers.master_for(
        name, redis_class=client, connection_pool_class=_Pool, **of_server, **options
    )
    return master


def servers(url: str, **options: Any) -> Redis | RedisCluster:
    """As `server`, or a client of the cluster at *url*."""
    if _kind(url) in CLUSTER:
        cluster: RedisCluster = RedisCluster.from_url(_plain(url), **options)
        return cluster
    return server(url, Redis, **options)


class _Pool(SentinelConnectionPool):
    """Closes what it asks the Sentinels over as well, which the client leaves to nobody."""

    async def disconnect(self, inuse_connections: bool = True) -> None:
        await super().disconnect(inuse_connections)
        if inuse_connections:
            for each in self.sentinel_manager.sentinels:
                await each.aclose()


def _kind(url: str) -> str:
    return url.partition("://")[0]


def _plain(url: str) -> str:
    return url.replace("+cluster://", "://", 1)


def _sentinels(url: str) -> tuple[list[tuple[str, int]], str, dict[str, Any]]:
    """The Sentinels, the name that they know the master by, and how to speak to it; or a ValueError."""
    parts = urlsplit(url)
    login, _, hosts = parts.netloc.rpartition("@")
    name, _, db = parts.path.lstrip("/").partition("/")
    if parse_qs(parts.query):
        raise ValueError("a Sentinel's address has no options")
    username, _, password = login.partition(":")
    of_server: dict[str, Any] = {"db": int(db or 0)}
    if login:
        of_server |= {"username": unquote(username) or None, "password": unquote(password) or None}
    if parts.scheme.startswith("rediss"):
        of_server["ssl"] = True
    return [_host_and_port(each) for each in hosts.split(",") if each], name, of_server


def _host_and_port(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("a Sentinel has a host")
    return parts.hostname, parts.port or SENTINEL_PORT
