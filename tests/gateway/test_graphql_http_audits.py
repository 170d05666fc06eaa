"""The official audits of GraphQL over HTTP, one row each, under the ids that graphql-http 1.22.4 gives them.

https://github.com/graphql/graphql-http/blob/main/src/audits/server.ts: 61 of them, MUST, SHOULD and MAY.
"""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.support.gateway_server import Edge

GRAPHQL, JSON = "application/graphql-response+json", "application/json"
ASK = {"query": "{ __typename }"}
TYPE = {
    "query": "query Type($name: String!) { __type(name: $name) { name } }",
    "variables": {"name": "sometype"},
}
NO_FIELD = {"query": "{ 8f31403dfe404bccbb0e835f2629c6a7 }"}
NO_ID = {"query": "query CoerceFailure($id: ID!){ __typename }", "variables": {"id": None}}


@dataclass(frozen=True)
class Audit:
    """A request and what has to come of it.

    A *body* that is a mapping is sent as JSON, by GET as parameters. *clean*: no errors in the answer;
    *no_data*: no such entry.
    """

    id: str
    body: Any
    accept: str | None = None
    status: tuple[int, int] = (200, 200)
    method: str = "POST"
    type: str | None = JSON
    answered: str | None = None
    clean: bool = False
    no_data: bool = False

    async def send(self, client: httpx.AsyncClient) -> httpx.Response:
        """The answer."""
        given = {
            "Accept": self.accept,
            "Content-Type": self.type if self.method == "POST" else None,
        }
        headers = {name: value for name, value in given.items() if value is not None}
        if self.method == "GET":
            params = {k: v if isinstance(v, str) else json.dumps(v) for k, v in self.body.items()}
            return await client.get("/graphql", params=params, headers=headers)
        content = self.body if isinstance(self.body, str) else json.dumps(self.body)
        return await client.post("/graphql", content=content, headers=headers)


def audits() -> Iterator[Audit]:
    """All of them, in the suite's order."""
    yield Audit("22EB", ASK, GRAPHQL, answered=GRAPHQL)
    yield Audit("4655", ASK, JSON, answered=JSON)
    yield Audit("47DE", ASK, "*/*", answered=JSON)
    yield Audit("80D8", ASK, answered=JSON)
    yield Audit("82A3", ASK)
    yield Audit(
        "BF61", {"query": '{ __type(name: "Run🏃Swim🏊") { name } }'}, type=f"{JSON}; charset=utf-8"
    )
    yield Audit("78D5", ASK)
    yield Audit("2C94", ASK)
    yield Audit("5A70", ASK, method="GET")
    yield Audit("9C48", {"query": "mutation { __typename }"}, GRAPHQL, (400, 499), method="GET")
    yield Audit("9ABE", ASK, None, (400, 499), type=None)
    yield Audit("03D4", ASK)
    yield Audit("A5BF", "", None, (400, 400))
    yield Audit("423L", {"notquery": "{ __typename }"}, GRAPHQL, (400, 400))
    for index, invalid in enumerate([{"obj": "ect"}, 0, False, ["array"]]):
        yield Audit(f"LKJ{index}", {"query": invalid}, None, (400, 400))
        yield Audit(f"6C0{index}", {**ASK, "operationName": invalid}, None, (400, 400))
    for index, invalid in enumerate(["string", 0, False, ["array"]]):
        yield Audit(f"476{index}", {**ASK, "variables": invalid}, None, (400, 400))
        yield Audit(f"58B{index}", {**ASK, "extensions": invalid}, None, (400, 400))
    yield Audit("34A2", ASK, GRAPHQL)
    yield Audit("13EE", ASK, JSON, clean=True)
    named = {"operationName": "Query", "query": "query Query { __typename }"}
    yield Audit("8161", named, GRAPHQL)
    yield Audit("B8B3", named, JSON, clean=True)
    for index, parameter in enumerate(["variables", "operationName", "extensions"]):
        yield Audit(f"94B{index}", {**ASK, parameter: None}, GRAPHQL, clean=True)
        yield Audit(f"022{index}", {**ASK, parameter: None}, JSON, clean=True)
    yield Audit("2EA1", TYPE, GRAPHQL)
    yield Audit("28B9", TYPE, JSON, clean=True)
    yield Audit("D6D5", TYPE, GRAPHQL, method="GET", clean=True)
    yield Audit("6A70", TYPE, JSON, method="GET", clean=True)
    yield Audit("428F", {**ASK, "extensions": {"some": "value"}}, GRAPHQL)
    yield Audit("1B7A", {**ASK, "extensions": {"some": "value"}}, JSON, clean=True)
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
async def client(edge: Edge) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody with a token, in the application's own process, who sends no header that an audit does not."""
    transport = httpx.ASGITransport(edge.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://edge") as somebody:
        somebody.headers = httpx.Headers({"Authorization": "Bearer ann"})
        yield somebody


async def test_every_official_audit_passes(client: httpx.AsyncClient) -> None:
    """All 61, those that only MAY be so as well."""
    failed = []
    for audit in audits():
        answer = await audit.send(client)
        body = json.loads(answer.content.decode("utf-8", "strict"))
        if not (
            audit.status[0] <= answer.status_code <= audit.status[1]
            and answer.headers["content-type"].startswith(audit.answered or "application/")
            and not (audit.clean and "errors" in body)
            and not (audit.no_data and "data" in body)
        ):
            failed.append((audit.id, answer.status_code, answer.text))

    assert failed == []
    assert len({audit.id for audit in audits()}) == 61
