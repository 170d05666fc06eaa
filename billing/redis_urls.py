"""Redis URLs: their forms, and the parts of one that its client would ignore or misread.

    redis://host:6379/0                                one server (rediss:// over TLS, unix:// by socket)
    redis+sentinel://one:26379,two:26379/name/0        the master that the Sentinels call *name*
    redis+cluster://host:6379                          a cluster, by any of its servers

User and password in a URL are the servers'; rediss+sentinel:// and rediss+cluster:// are over TLS. Sentinels have
a user, a password and TLS of their own: ``?sentinel_username=…&sentinel_password=…&sentinel_tls=true``.
"""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from redis.asyncio.connection import parse_url

SINGLE_SCHEMES = frozenset({"redis", "rediss", "unix"})
SENTINEL_SCHEMES = frozenset({"redis+sentinel", "rediss+sentinel"})
CLUSTER_SCHEMES = frozenset({"redis+cluster", "rediss+cluster"})
SENTINEL_PORT, REDIS_PORT = 26379, 6379

CONNECTION_OPTIONS = frozenset(
    {"socket_timeout", "socket_connect_timeout", "socket_keepalive", "health_check_interval"}
    | {"retry_on_timeout", "max_connections", "client_name"}
)
TLS_OPTIONS = frozenset(
    {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"}
)
SENTINEL_OPTIONS = frozenset({"sentinel_username", "sentinel_password", "sentinel_tls"})
NUMBER, TRUTH = re.compile(r"[0-9]{1,6}(\.[0-9]+)?", re.ASCII), re.compile("true|false")
OPTION_VALUES = {
    "db": re.compile("[0-9]{1,4}", re.ASCII),
    "socket_timeout": NUMBER,
    "socket_connect_timeout": NUMBER,
    "health_check_interval": re.compile("[0-9]{1,6}", re.ASCII),
    "max_connections": re.compile("[1-9][0-9]{0,6}", re.ASCII),
    "socket_keepalive": TRUTH,
    "retry_on_timeout": TRUTH,
    "sentinel_tls": TRUTH,
    "ssl_check_hostname": TRUTH,
    "ssl_cert_reqs": re.compile("none|optional|required"),
}
DATABASE = re.compile(r"/?[0-9]{0,4}", re.ASCII)
PRINTABLE = re.compile(r"[\x21-\x7e]*")


@dataclass(frozen=True, slots=True)
class SentinelUrl:
    """The Sentinels' *addresses*, their *name* for the master, and the options of connections to either."""

    addresses: list[tuple[str, int]]
    name: str
    master_options: dict[str, Any]
    sentinel_options: dict[str, Any]


def url_problem(url: str, schemes: frozenset[str]) -> str | None:
    """Return what is wrong with *url*, the end of a sentence that begins with its variable; None if it can be used.

    The sentence repeats nothing of *url*, which may contain a password.
    """
    if scheme_of(url) not in schemes:
        return "names no server that can be used for it"
    if not PRINTABLE.fullmatch(url) or "'" in url or '"' in url:
        return "contains white space, quotes or a character beyond ASCII"
    if "#" in url:
        return "contains a #, at which an address ends; write %23 in a password"
    try:
        parts = urlsplit(url)
        return _host_problem(parts) or _path_problem(parts) or _options_problem(parts)
    except ValueError:
        return "cannot be read as an address; percent-encode the special characters of a password"


def server_of(url: str) -> str:
    """Return the server that *url* leads to, whatever user, database and options it names."""
    parts = urlsplit(url)
    hosts = parts.netloc.rpartition("@")[2].lower()
    if parts.scheme in SENTINEL_SCHEMES:
        return f"{','.join(sorted(hosts.split(',')))}/{parts.path.split('/')[1]}"
    return parts.path if parts.scheme == "unix" else f"{parts.hostname}:{parts.port or REDIS_PORT}"


def scheme_of(url: str) -> str:
    """Return the scheme of *url*, "" if it has none."""
    scheme, separator, _ = url.partition("://")
    return scheme if separator else ""


def plain_url(url: str) -> str:
    """Return a cluster's *url* as redis-py spells it."""
    return url.replace("+cluster://", "://", 1)


def parse_sentinel_url(url: str) -> SentinelUrl:
    """Parse a *url* that has no problem."""
    parts = urlsplit(url)
    _, name, database, *_ = f"{parts.path}//".split("/")
    username, _, password = parts.netloc.rpartition("@")[0].partition(":")
    options = dict(parse_qsl(parts.query))
    # redis-py's own parser knows the types of its options.
    typed = parse_url(f"redis://?{parts.query}")
    tls = {option: value for option, value in typed.items() if option in TLS_OPTIONS}
    master: dict[str, Any] = {
        "db": int(database or 0),
        "username": unquote(username),
        "password": unquote(password),
    }
    sentinel: dict[str, Any] = {
        field: options.get(f"sentinel_{field}") for field in ("username", "password")
    }
    if parts.scheme.startswith("rediss"):
        master |= {"ssl": True, **tls}
    if options.get("sentinel_tls") == "true":
        sentinel |= {"ssl": True, **tls}
    return SentinelUrl(_sentinel_addresses(parts), name, _given(master), _given(sentinel))


def _host_problem(parts: SplitResult) -> str | None:
    hosts = parts.netloc.rpartition("@")[2]
    if parts.scheme == "unix":
        return "is a socket's path, and has a host before it; write unix:///path" if hosts else None
    if parts.scheme in SENTINEL_SCHEMES:
        named = _sentinel_addresses(parts)
    else:
        named = [(parts.hostname or "", REDIS_PORT if parts.port is None else parts.port)]
    if not named or not all(host for host, _ in named):
        return "names no host"
    return None if all(port for _, port in named) else "has a port that is 0"


def _path_problem(parts: SplitResult) -> str | None:
    path = parts.path
    if parts.scheme == "unix":
        return None if path else "names no socket"
    if parts.scheme in SENTINEL_SCHEMES:
        _, _, after = path.partition("/")
        name, slash, database = after.partition("/")
        if not name:
            return "does not end with the Sentinels' name for the master, as in /name/0"
        path = slash + database
    if not DATABASE.fullmatch(path):
        return "ends with a database that is no number"
    if parts.scheme in CLUSTER_SCHEMES and path.strip("/0"):
        return "names a database, and a cluster has none but 0"
    return None


def _options_problem(parts: SplitResult) -> str | None:
    options = parse_qsl(parts.query, keep_blank_values=True)
    known = _known_options(parts, dict(options))
    names = [name for name, _ in options]
    if any(name not in known or not value or names.count(name) > 1 for name, value in options):
        usable = ", ".join(sorted(known)) or "none"
        return f"has an option that is unknown here, empty or repeated; those it may have: {usable}"
    for name, value in options:
        if name in OPTION_VALUES and not OPTION_VALUES[name].fullmatch(value):
            return f"has a value of the option {name} that does not fit"
    return None


def _known_options(parts: SplitResult, options: dict[str, str]) -> frozenset[str]:
    sentinels = parts.scheme in SENTINEL_SCHEMES
    known = SENTINEL_OPTIONS if sentinels else CONNECTION_OPTIONS
    if parts.scheme.startswith("rediss") or options.get("sentinel_tls") == "true":
        known |= TLS_OPTIONS
    if parts.scheme == "unix" or (parts.scheme in SINGLE_SCHEMES and not parts.path.strip("/")):
        known |= {"db"}
    return known


def _sentinel_addresses(parts: SplitResult) -> list[tuple[str, int]]:
    hosts = [urlsplit(f"//{host}") for host in parts.netloc.rpartition("@")[2].split(",") if host]
    return [
        (host.hostname or "", SENTINEL_PORT if host.port is None else host.port) for host in hosts
    ]


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {option: value for option, value in options.items() if value not in (None, "")}
