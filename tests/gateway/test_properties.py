"""Properties: any request gets a well-formed response and never an internal error of the endpoint."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.gateway_server import SmallGateway

ANYTHING = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

WORDS = [
    *"{}()[]:=!$@|&", "...", "query", "mutation", "subscription", "fragment", "on", "F", "Leaf", "Query", "hello", "leaf",
    "leaves", "again", "nodes", "id", "first", "name", "colour", "of", "CRIMSON", "fault", "fatal", "refused", "add", "a",
    "1", "-1", "1.5", "1e9", '"x"', '"""x"""', "$v", "true", "null", "skip", "include", "if", "__typename", "__schema",
    "__type", "# c\n", "\u0000", "é", "\ufeff",
]  # fmt: skip

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
documents = st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join)
requests = st.fixed_dictionaries(
    {},
    optional={
        "query": documents | json_values,
        "variables": st.dictionaries(st.sampled_from(["v", "c"]), json_values) | json_values,
        "operationName": st.sampled_from(["F", "A", ""]) | json_values,
        "extensions": st.dictionaries(st.just("persistedQuery"), json_values) | json_values,
        "documentId": json_values,
    },
)


@pytest.fixture
async def client(small_gateway: SmallGateway) -> AsyncIterator[httpx.AsyncClient]:
    """An in-process client with a token."""
    transport = httpx.ASGITransport(small_gateway.app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://gateway", headers={"Authorization": "Bearer ann"}
    ) as client:
        yield client


def assert_well_formed(response: httpx.Response) -> None:
    """A JSON object with data or errors, each with a message and a code; internal errors only in resolvers."""
    body = response.json()
    assert response.headers["content-type"].startswith("application/")
    assert "data" in body or body["errors"]
    for error in body.get("errors", []):
        assert error["message"]
        assert error["extensions"]["code"]
        if error["extensions"]["code"] == "INTERNAL_SERVER_ERROR":
            assert error["path"]
    assert response.status_code in (200, 400, 405, 429)


@ANYTHING
@given(body=st.binary(max_size=200) | json_values.map(lambda v: json.dumps(v).encode()))
async def test_any_bytes_get_a_well_formed_response(client: httpx.AsyncClient, body: bytes) -> None:
    """JSON, with a fitting status."""
    response = await client.post(
        "/graphql", content=body, headers={"Content-Type": "application/json"}
    )

    assert_well_formed(response)


@ANYTHING
@given(request=requests)
@example(request={"query": "{ hello }", "variables": {"v": float("nan")}})
async def test_any_request_gets_a_well_formed_response(
    client: httpx.AsyncClient, request: dict[str, Any]
) -> None:
    """By POST, and by GET as far as a URL can carry it."""
    posted = await client.post(
        "/graphql",
        content=json.dumps(request).encode(),
        headers={"Content-Type": "application/json", "Accept": "application/graphql-response+json"},
    )
    params = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in request.items()
    }
    got = await client.get("/graphql", params=params)

    assert_well_formed(posted)
    assert_well_formed(got)


@ANYTHING
@given(accept=st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=60))
@example(accept="application/json;q=1e400, */*;q=-1")
@example(accept=",;q=,*/*;;q=0.5;q=nan")
async def test_any_accept_header_gets_a_200_or_406(client: httpx.AsyncClient, accept: str) -> None:
    """Even one that is not well-formed."""
    response = await client.post(
        "/graphql", json={"query": "{ hello }"}, headers={"Accept": accept.encode("latin-1")}
    )

    assert response.status_code in (200, 406)
