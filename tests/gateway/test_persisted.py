"""Automatic persisted queries, and the manifest of trusted documents."""

import hashlib
from dataclasses import replace
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from gateway.graphql.admission.best_effort_redis import BestEffortRedis
from tests.support.gateway_server import SmallGateway, http_client, serve
from tests.support.websocket_client import connect

HELLO = "{ hello }"
PANEL = "query Panel { leaf { name } }"


def sha256(text: str) -> str:
    """Return the hash of *text*."""
    return hashlib.sha256(text.encode()).hexdigest()


def persisted_query(text: str, version: Any = 1) -> dict[str, Any]:
    """Return the extension that names *text* by its hash."""
    return {"persistedQuery": {"version": version, "sha256Hash": sha256(text)}}


async def test_persisted_query_runs_by_hash_after_registration(client: httpx.AsyncClient) -> None:
    """Unknown, registered with its text, known: the protocol of Apollo and urql, the last step by GET."""
    alone = {"extensions": persisted_query(HELLO)}

    unknown = await client.post("/graphql", json=alone)
    registered = await client.post("/graphql", json={"query": HELLO, **alone})
    known = await client.post("/graphql", json=alone)
    by_get = await client.get(
        "/graphql",
        params={
            "extensions": f'{{"persistedQuery":{{"version":1,"sha256Hash":"{sha256(HELLO)}"}}}}'
        },
    )

    assert unknown.status_code == 200
    error = unknown.json()["errors"][0]
    assert [
        error["message"],
        error["extensions"]["code"],
    ] == ["PersistedQueryNotFound", "PERSISTED_QUERY_NOT_FOUND"]
    for response in (registered, known, by_get):
        assert response.json()["data"] == {"hello": "hello world"}


async def test_persisted_query_is_shared_by_processes(small_gateway: SmallGateway) -> None:
    """The next request may reach another process."""
    async with http_client(small_gateway) as client:
        await client.post("/graphql", json={"query": HELLO, "extensions": persisted_query(HELLO)})
    async with serve(small_gateway.app) as address, connect(address) as ws_client:
        await ws_client.init()
        [response, _] = await ws_client.execute("1", None, extensions=persisted_query(HELLO))

    assert response["payload"]["data"] == {"hello": "hello world"}


@pytest.mark.parametrize(
    "text",
    ["{", "{ unknown }", "{ leaves(first: 101) { nodes { id } } }", "{" + "hello " * 100 + "}"],
)
async def test_only_valid_documents_are_persisted(
    client: httpx.AsyncClient, redis: Redis, text: str
) -> None:
    """Else it would be free storage for anybody."""
    await client.post("/graphql", json={"query": text, "extensions": persisted_query(text)})

    assert await redis.keys("gw:document:*") == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"query": HELLO, "extensions": persisted_query(PANEL)}, "BAD_REQUEST"),
        ({"query": HELLO, "extensions": persisted_query(HELLO, version=2)}, "PERSISTED_QUERY_NOT_SUPPORTED"),
        ({"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "short"}}}, "PERSISTED_QUERY_NOT_SUPPORTED"),
        ({"extensions": {"persistedQuery": "text"}}, "PERSISTED_QUERY_NOT_SUPPORTED"),
        ({"documentId": "unknown"}, "PERSISTED_QUERY_NOT_FOUND"),
    ],
)  # fmt: skip
async def test_invalid_hash_is_rejected(
    client: httpx.AsyncClient, body: dict[str, Any], code: str
) -> None:
    """Nobody can register a document under the hash of another."""
    response = await client.post("/graphql", json=body)

    assert code == response.json()["errors"][0]["extensions"]["code"]


@pytest.mark.parametrize(
    "body",
    [
        {"documentId": "panel-1"},
        {"documentId": sha256(PANEL)},
        {"extensions": persisted_query(PANEL)},
        {"query": PANEL},
        {"query": PANEL, "extensions": persisted_query(PANEL)},
    ],
)
async def test_trusted_document_runs_by_id_hash_or_text(
    small_gateway: SmallGateway, body: dict[str, Any]
) -> None:
    """However the client names it."""
    small_gateway.trusted = {"panel-1": PANEL}
    small_gateway.caller = lambda caller: replace(caller, may_send_ad_hoc=False)
    async with http_client(small_gateway) as client:
        response = await client.post("/graphql", json=body)

    assert response.json()["data"] == {"leaf": {"name": "one"}}


async def test_manifest_rejects_ad_hoc_documents_except_for_support(
    small_gateway: SmallGateway,
) -> None:
    """A customer's token runs the panel's documents and no others."""
    small_gateway.trusted = {"panel-1": PANEL}
    small_gateway.caller = lambda caller: replace(caller, may_send_ad_hoc=caller.name == "support")
    bodies = [{"query": HELLO}, {"extensions": persisted_query(HELLO)}, {"documentId": "other"}]
    async with http_client(small_gateway) as client:
        refused = [await client.post("/graphql", json=body) for body in bodies]
        support = await client.post(
            "/graphql", json=bodies[0], headers={"Authorization": "Bearer support"}
        )

    codes = {response.json()["errors"][0]["extensions"]["code"] for response in refused}
    assert {"DOCUMENT_NOT_TRUSTED"} == codes
    assert support.json()["data"] == {"hello": "hello world"}


async def test_without_redis_hashes_are_unknown(small_gateway: SmallGateway) -> None:
    """Clients then send the text, which runs."""
    small_gateway.redis = BestEffortRedis.from_url("redis://127.0.0.1:1")
    alone = {"extensions": persisted_query(HELLO)}

    async with http_client(small_gateway) as client:
        unknown = await client.post("/graphql", json=alone)
        registered = await client.post("/graphql", json={"query": HELLO, **alone})

    assert unknown.json()["errors"][0]["message"] == "PersistedQueryNotFound"
    assert registered.json()["data"] == {"hello": "hello world"}


REVEALING = [
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


@pytest.mark.parametrize(("query", "variables"), REVEALING)
async def test_caller_without_introspection_learns_no_names(
    small_gateway: SmallGateway, query: str, variables: dict[str, Any]
) -> None:
    """Neither from introspection nor from a suggestion."""
    small_gateway.caller = lambda caller: replace(caller, may_introspect=False)
    async with http_client(small_gateway) as client:
        response = await client.post("/graphql", json={"query": query, "variables": variables})

    assert "data" not in response.json()
    assert "Did you mean" not in response.text
    for name in ("CRIMSON", "SCARLET", "LeafConnection", '"Leaf"'):
        assert name not in response.text


async def test_caller_with_introspection_gets_suggestions(client: httpx.AsyncClient) -> None:
    """The right name in an error message saves people time."""
    response = await client.post("/graphql", json={"query": "{ helo }"})

    assert "Did you mean 'hello'?" in response.json()["errors"][0]["message"]
