"""Redis URLs: each part means something to the client, or the URL is refused."""

import pytest
from redis.asyncio import Redis

from billing.redis_clients import client_or_cluster
from billing.redis_urls import (
    CLUSTER_SCHEMES,
    SENTINEL_SCHEMES,
    SINGLE_SCHEMES,
    SentinelUrl,
    parse_sentinel_url,
    server_of,
    url_problem,
)

ANY_SCHEME = SINGLE_SCHEMES | SENTINEL_SCHEMES | CLUSTER_SCHEMES


@pytest.mark.parametrize(
    ("url", "kinds"),
    [
        ("redis://ledger:6379/0", SINGLE_SCHEMES),
        ("rediss://user:secret@ledger:6379/0", SINGLE_SCHEMES),
        ("unix:///run/valkey.sock", SINGLE_SCHEMES),
        ("redis+sentinel://one:26379,two,three:26379/ledger/0", SENTINEL_SCHEMES),
        ("rediss+sentinel://user:p%40ss@one/ledger", SENTINEL_SCHEMES),
        ("redis+cluster://ledger:6379", CLUSTER_SCHEMES),
    ],
)
def test_each_url_has_one_kind(url: str, kinds: frozenset[str]) -> None:
    """So that a setting can say which kinds it accepts."""
    assert [
        kind
        for kind in (SINGLE_SCHEMES, SENTINEL_SCHEMES, CLUSTER_SCHEMES)
        if url_problem(url, kind) is None
    ] == [kinds]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ledger:6379",
        "http://ledger",
        "redis://ledger:port/0",
        "redis://ledger:70000",
        "redis://ledger:0",
        "redis://:57#Wc9z@ledger:6379/0",
        "redis://ledger:6379/0#main",
        "redis://ledger:6379/abc",
        "redis://ledger:6379/0/1",
        "redis://ledger:6379/-1",
        "redis://:6379",
        "redis://",
        "redis://user:secret@:6379/0",
        "redis://[::1:6379/0",
        "redis://ledger:6379/0?nonsense=1",
        "redis://ledger:6379/0?timeout=1",
        "redis://ledger:6379/0?db=1",
        "redis://ledger:6379?db=one",
        "redis://ledger:6379/0?socket_timeout=",
        "redis://ledger:6379/0?socket_timeout=soon",
        "redis://ledger:6379/0?socket_timeout=1&socket_timeout=2",
        "redis://ledger:6379/0?ssl_ca_certs=/ca.pem",
        "rediss://ledger:6379/0?ssl_cert_reqs=maybe",
        "redis://ledger:6379/0\n",
        " redis://ledger:6379/0",
        '"redis://ledger:6379/0"',
        "unix://",
        "unix://run/valkey.sock",
        "redis+cluster://ledger:6379/1",
        "redis+cluster://ledger:6379?db=1",
        "redis+sentinel://one:26379",
        "redis+sentinel:///name",
        "redis+sentinel://one:port/name",
        "redis+sentinel://one/name/first",
        "redis+sentinel://one/name?db=1",
        "redis+sentinel://one/name?sentinel_tls=yes",
        "redis+sentinel://one/name?ssl_ca_certs=/ca.pem",
    ],
)
def test_part_that_the_client_would_ignore_is_refused(url: str) -> None:
    """It would lead to another server or database, or end the start with a stack trace."""
    problem = url_problem(url, ANY_SCHEME)

    assert problem
    assert "Wc9z" not in problem


@pytest.mark.parametrize(
    "url",
    [
        "redis://ledger",
        "redis://ledger:6379",
        "redis://ledger:6379/",
        "redis://ledger?db=3",
        "redis://:p%23ss@[::1]:6379/0",
        "redis://ledger:6379/0?socket_timeout=2.5&max_connections=50",
        "rediss://ledger:6379/0?ssl_ca_certs=/ca.pem&ssl_check_hostname=true",
        "unix:///run/valkey.sock?db=1",
        "redis+cluster://ledger:6379/0",
    ],
)
async def test_accepted_url_makes_a_client(url: str) -> None:
    """Each part that is accepted is one that the client takes, also with the ledger's own options."""
    redis = client_or_cluster(url, socket_timeout=1, socket_keepalive=True)
    assert url_problem(url, ANY_SCHEME) is None
    if isinstance(redis, Redis):
        redis.connection_pool.make_connection()
        await redis.aclose()


def test_sentinels_have_a_login_and_tls_of_their_own() -> None:
    """User and password before the hosts are the server's; those of the Sentinels are options."""
    url = (
        "rediss+sentinel://app:s%40ve@one,two:1/ledger/2?sentinel_username=watch&sentinel_password=p%2540ss"
        "&sentinel_tls=true&ssl_ca_certs=/ca.pem&ssl_check_hostname=false"
    )
    tls = {"ssl": True, "ssl_ca_certs": "/ca.pem", "ssl_check_hostname": False}

    assert url_problem(url, ANY_SCHEME) is None
    assert parse_sentinel_url(url) == SentinelUrl(
        [("one", 26379), ("two", 1)],
        "ledger",
        {"db": 2, "username": "app", "password": "s@ve", **tls},
        {"username": "watch", "password": "p%40ss", **tls},
    )
    plain = parse_sentinel_url("redis+sentinel://one/ledger")
    assert (plain.master_options, plain.sentinel_options) == ({"db": 0}, {})


def test_server_is_the_same_whatever_else_its_url_says() -> None:
    """Another database or user is the same memory; another name of the Sentinels' is another server."""
    same = {
        server_of(url)
        for url in ("redis://Ledger/0", "redis://u:p@ledger:6379/1", "rediss://ledger:6379")
    }
    others = {
        server_of(url)
        for url in (
            "redis://ledger:6380",
            "redis+sentinel://ledger/one",
            "redis+sentinel://ledger/two",
            "unix:///run/valkey.sock",
        )
    }

    assert (len(same), len(others | same)) == (1, 5)
