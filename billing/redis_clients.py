"""Redis clients by URL: one server, the master that Sentinel names, or a cluster.

    redis://host:6379/0                                one server (rediss:// over TLS, unix:// by socket)
    redis+sentinel://one:26379,two:26379/name/0        the master that the Sentinels call *name*
    redis+cluster://host:6379                          a cluster, by any of its servers

User and password in a URL are the servers'; rediss+sentinel:// and rediss+cluster:// are over TLS.
"""

from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import parse_url
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool

SINGLE_SCHEMES = frozenset({"redis", "rediss", "unix"})
SENTINEL_SCHEMES = frozenset({"redis+sentinel", "rediss+sentinel"})
CLUSTER_SCHEMES = frozenset({"redis+cluster", "rediss+cluster"})
SENTINEL_PORT = 26379

Client = TypeVar("Client", bound=Redis)


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
        cluster: RedisCluster = RedisCluster.from_url(_plain_url(url), **options)
        return cluster
    return client(url, Redis, **options)


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
