"""The official audits of GraphQL over HTTP, one row each, under the ids that graphql-http 1.22.4 gives them.

https://github.com/graphql/graphql-http/blob/main/src/audits/server.ts: 61 of them, MUST, SHOULD and MAY.
"""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.support.gateway_server import SmallGateway

GRAPHQL, JSON = "application/graphql-response+json", "application/json"
QUERY = {"query": "{ __typename }"}
TYPE = {
    "query": "query Type($name: String!) { __type(name: $name) { name } }",
    "variables": {"name": "sometype"},
}
NO_FIELD = {"query": "{ 8f31403dfe404bccbb0e835f2629c6a7 }"}
NO_ID = {"query": "query CoerceFailure($id: ID!){ __typename }", "variables": {"id": None}}


@dataclass(frozen=True)
class Audit:
    """A request and the requirements on its response.

    A mapping as *body* is sent as JSON, by GET as parameters. *media_type* is the response's. *no_errors*
    and *no_data* require that the response has no such entry.
    """

    id: str
    body: Any
    accept: str | None = None
    status: tuple[int, int] = (200, 200)
    method: str = "POST"
    type: str | None = JSON
    media_type: str | None = None
    no_errors: bool = False
    no_data: bool = False

    async def send(self, client: httpx.AsyncClient) -> httpx.Response:
        """Send the request."""
        optional = {
            "Accept": self.accept,
            "Content-Type": self.type if self.method == "POST" else None,
        }
        headers = {name: value for name, value in optional.items() if value is not None}
        if self.method == "GET":
            params = {k: v if isinstance(v, str) else json.dumps(v) for k, v in self.body.items()}
            return await client.get("/graphql", params=params, headers=headers)
        content = self.body if isinstance(self.body, str) else json.dumps(self.body)
        return await client.post("/graphql", content=content, headers=headers)


def audits() -> Iterator[Audit]:
    """Yield all audits, in the suite's order."""
    yield Audit("22EB", QUERY, GRAPHQL, media_type=GRAPHQL)
    yield Audit("4655", QUERY, JSON, media_type=JSON)
    yield Audit("47DE", QUERY, "*/*", media_type=JSON)
    yield Audit("80D8", QUERY, media_type=JSON)
    yield Audit("82A3", QUERY)
    yield Audit(
        "BF61", {"query": '{ __type(name: "Run🏃Swim🏊") { name } }'}, type=f"{JSON}; charset=utf-8"
    )
    yield Audit("78D5", QUERY)
    yield Audit("2C94", QUERY)
    yield Audit("5A70", QUERY, method="GET")
    yield Audit("9C48", {"query": "mutation { __typename }"}, GRAPHQL, (400, 499), method="GET")
    yield Audit("9ABE", QUERY, None, (400, 499), type=None)
    yield Audit("03D4", QUERY)
    yield Audit("A5BF", "", None, (400, 400))
    yield Audit("423L", {"notquery": "{ __typename }"}, GRAPHQL, (400, 400))
    for index, invalid in enumerate([{"obj": "ect"}, 0, False, ["array"]]):
        yield Audit(f"LKJ{index}", {"query": invalid}, None, (400, 400))
        yield Audit(f"6C0{index}", {**QUERY, "operationName": invalid}, None, (400, 400))
    for index, invalid in enumerate(["string", 0, False, ["array"]]):
        yield Audit(f"476{index}", {**QUERY, "variables": invalid}, None, (400, 400))
        yield Audit(f"58B{index}", {**QUERY, "extensions": invalid}, None, (400, 400))
    yield Audit("34A2", QUERY, GRAPHQL)
    yield Audit("13EE", QUERY, JSON, no_errors=True)
    named = {"operationName": "Query", "query": "query Query { __typename }"}
    yield Audit("8161", named, GRAPHQL)
    yield Audit("B8B3", named, JSON, no_errors=True)
    for index, parameter in enumerate(["variables", "operationName", "extensions"]):
        yield Audit(f"94B{index}", {**QUERY, parameter: None}, GRAPHQL, no_errors=True)
        yield Audit(f"022{index}", {**QUERY, parameter: None}, JSON, no_errors=True)
    yield Audit("2EA1", TYPE, GRAPHQL)
    yield Audit("28B9", TYPE, JSON, no_errors=True)
    yield Audit("D6D5", TYPE, GRAPHQL, method="GET", no_errors=True)
    yield Audit("6A70", TYPE, JSON, method="GET", no_errors=True)
    yield Audit("428F", {**QUERY, "extensions": {"some": "value"}}, GRAPHQL)
    yield Audit("1B7A", {**QUERY, "extensions": {"some": "value"}}, JSON, no_errors=True)
    yield Audit("B6DC", '{ "not a JSON', JSON, (400, 599))
    yield Audit("BCF8", '{ "not a JSON', JSON, (400, 400))
    yield Audit("B7N8", '{ "not a JSON', GRAPHQL, (400, 400))
    yield Audit("8764", {"qeury": "{ __typename }"}, None, (400, 599))
    yield Audit("3E3A", {"qeury": "{ __typename }"}, None, (400, 400))
    yield Audit("572B", {"query": "{"}, JSON)
    yield Audit("FDE2", NO_FIELD, JSON)
    yield Audit("7B9B", NO_ID, JSON)
    yield Audit("865D", {"query": "{"}, GRAPHQL, (400, 599))
    yield Audit("556A", {"query": "{"}, GRAPHQL, (400, 400))
    yield Audit("D586", {"query": "{"}, GRAPHQL, (400, 400), no_data=True)
    yield Audit("51FE", NO_FIELD, GRAPHQL, (400, 599))
    yield Audit("74FF", NO_FIELD, GRAPHQL, (400, 400))
    yield Audit("5E5B", NO_FIELD, GRAPHQL, (400, 400), no_data=True)
    yield Audit("86EE", NO_ID, GRAPHQL, (400, 400))


@pytest.fixture
async def client(small_gateway: SmallGateway) -> AsyncIterator[httpx.AsyncClient]:
    """An in-process client with a token that adds no header of its own."""
    transport = httpx.ASGITransport(small_gateway.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        client.headers = httpx.Headers({"Authorization": "Bearer ann"})
        yield client


@pytest.mark.usefixtures("both_executors")
async def test_all_official_audits_pass(client: httpx.AsyncClient) -> None:
    """All 61, MAY included."""
    failed = []
    for audit in audits():
        response = await audit.send(client)
        body = json.loads(response.content.decode("utf-8", "strict"))
        if not (
            audit.status[0] <= response.status_code <= audit.status[1]
            and response.headers["content-type"].startswith(audit.media_type or "application/")
            and not (audit.no_errors and "errors" in body)
            and not (audit.no_data and "data" in body)
        ):
            failed.append((audit.id, response.status_code, response.text))

    assert failed == []
    assert len({audit.id for audit in audits()}) == 61
