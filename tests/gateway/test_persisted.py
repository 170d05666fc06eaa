"""Automatic persisted queries, and the manifest of trusted documents."""

import hashlib
from dataclasses import replace
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from tests.gateway.test_websocket import connected
from tests.support.gateway_server import Edge, client_of, serve

HELLO = "{ hello }"
PANEL = "query Panel { leaf { name } }"


def sha(text: str) -> str:
    """The hash that names *text*."""
    return hashlib.sha256(text.encode()).hexdigest()


def persisted(text: str, version: Any = 1) -> dict[str, Any]:
    """The extension that names *text*."""
    return {"persistedQuery": {"version": version, "sha256Hash": sha(text)}}


async def test_a_hash_stands_for_a_document_once_it_was_sent(client: httpx.AsyncClient) -> None:
    """Unknown, sent with its text, known: Apollo's and urql's dance, the last step by GET."""
    alone = {"extensions": persisted(HELLO)}

    unknown = await client.post("/graphql", json=alone)
    taught = await client.post("/graphql", json={"query": HELLO, **alone})
    known = await client.post("/graphql", json=alone)
    by_get = await client.get(
        "/graphql",
        params={"extensions": f'{{"persistedQuery":{{"version":1,"sha256Hash":"{sha(HELLO)}"}}}}'},
    )

    assert unknown.status_code == 200
    error = unknown.json()["errors"][0]
    assert [
        error["message"],
        error["extensions"]["code"],
    ] == ["PersistedQueryNotFound", "PERSISTED_QUERY_NOT_FOUND"]
    for answer in (taught, known, by_get):
        assert answer.json()["data"] == {"hello": "hello world"}


async def test_a_hash_is_known_to_all_processes(edge: Edge) -> None:
    """The next request may reach another one."""
    async with client_of(edge) as client:
        await client.post("/graphql", json={"query": HELLO, "extensions": persisted(HELLO)})
    async with serve(edge.app) as address, connected(address) as peer:
        await peer.begin()
        [answer, _] = await peer.run("1", None, extensions=persisted(HELLO))

    assert answer["payload"]["data"] == {"hello": "hello world"}


@pytest.mark.parametrize(
    "text",
    ["{", "{ unknown }", "{ leaves(first: 101) { nodes { id } } }", "{" + "hello " * 100 + "}"],
)
async def test_only_what_may_run_is_kept(
    client: httpx.AsyncClient, redis: Redis, text: str
) -> None:
    """Else it would be a free store for anybody's bytes."""
    await client.post("/graphql", json={"query": text, "extensions": persisted(text)})

    assert await redis.keys("gw:document:*") == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"query": HELLO, "extensions": persisted(PANEL)}, "BAD_REQUEST"),
        ({"query": HELLO, "extensions": persisted(HELLO, version=2)}, "PERSISTED_QUERY_NOT_SUPPORTED"),
        ({"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "short"}}}, "PERSISTED_QUERY_NOT_SUPPORTED"),
        ({"extensions": {"persistedQuery": "text"}}, "PERSISTED_QUERY_NOT_SUPPORTED"),
        ({"documentId": "unheard of"}, "PERSISTED_QUERY_NOT_FOUND"),
    ],
)  # fmt: skip
async def test_a_hash_that_does_not_fit_is_refused(
    client: httpx.AsyncClient, body: dict[str, Any], code: str
) -> None:
    """Nobody can teach us a document under another one's name."""
    answer = await client.post("/graphql", json=body)

    assert code == answer.json()["errors"][0]["extensions"]["code"]


@pytest.mark.parametrize(
    "body",
    [
        {"documentId": "panel-1"},
        {"documentId": sha(PANEL)},
        {"extensions": persisted(PANEL)},
        {"query": PANEL},
        {"query": PANEL, "extensions": persisted(PANEL)},
    ],
)
async def test_trusted_documents_run_however_they_are_named(
    edge: Edge, body: dict[str, Any]
) -> None:
    """By id, by hash, or by their text."""
    edge.trusted = {"panel-1": PANEL}
    edge.caller = lambda caller: replace(caller, ad_hoc=False)
    async with client_of(edge) as client:
        answer = await client.post("/graphql", json=body)

    assert answer.json()["data"] == {"leaf": {"name": "one"}}


async def test_with_a_manifest_nothing_else_runs_but_for_support(edge: Edge) -> None:
    """What the panel never asks, nobody with the panel's token can ask."""
    edge.trusted = {"panel-1": PANEL}
    edge.caller = lambda caller: replace(caller, ad_hoc=caller.name == "support")
    bodies = [{"query": HELLO}, {"extensions": persisted(HELLO)}, {"documentId": "other"}]
    async with client_of(edge) as client:
        refused = [await client.post("/graphql", json=body) for body in bodies]
        support = await client.post(
            "/graphql", json=bodies[0], headers={"Authorization": "Bearer support"}
        )

    codes = {each.json()["errors"][0]["extensions"]["code"] for each in refused}
    assert {"DOCUMENT_NOT_TRUSTED"} == codes
    assert support.json()["data"] == {"hello": "hello world"}


async def test_without_redis_documents_are_sent_as_text(
    client: httpx.AsyncClient, edge: Edge
) -> None:
    """A hash is then unknown, which clients answer with the text; the text runs."""
    edge.store._redis = Redis.from_url("redis://127.0.0.1:1")

    unknown = await client.post("/graphql", json={"extensions": persisted(HELLO)})
    taught = await client.post("/graphql", json={"query": HELLO, "extensions": persisted(HELLO)})

    assert unknown.json()["errors"][0]["message"] == "PersistedQueryNotFound"
    assert taught.json()["data"] == {"hello": "hello world"}


SECRETIVE = [
    ("{ __schema { types { name } } }", {}),
    ('{ __type(name: "Leaf") { name } }', {}),
    ("{ ...F } fragment F on Query { ... { __schema { types { name } } } }", {}),
    ("{ helo }", {}),
    ("{ leaf { nam } }", {}),
    ("{ hello(nam: 1) }", {}),
    ("{ ... on Lea { id } }", {}),
    ("query ($c: Colou) { hello }", {}),
    ("{ colour(of: CRIMSOM) }", {}),
    ("query ($c: Colour!) { colour(of: $c) }", {"c": "CRIMSOM"}),
    ("{ hello @skp(if: true) }", {}),
    ("{ ...Fo } fragment Foo on Query { hello }", {}),
]


@pytest.mark.parametrize(("query", "variables"), SECRETIVE)
async def test_who_may_not_introspect_learns_no_names(
    edge: Edge, query: str, variables: dict[str, Any]
) -> None:
    """Neither from introspection nor from any suggestion."""
    edge.caller = lambda caller: replace(caller, introspects=False)
    async with client_of(edge) as client:
        answer = await client.post("/graphql", json={"query": query, "variables": variables})

    assert "data" not in answer.json()
    assert "Did you mean" not in answer.text
    for name in ("CRIMSON", "SCARLET", "LeafConnection", '"Leaf"'):
        assert name not in answer.text


async def test_who_may_introspect_is_helped(client: httpx.AsyncClient) -> None:
    """A typing error costs a person less time with the right name beside it."""
    answer = await client.post("/graphql", json={"query": "{ helo }"})

    assert "Did you mean 'hello'?" in answer.json()["errors"][0]["message"]
