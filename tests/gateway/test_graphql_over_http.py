"""GraphQL over HTTP: the requirements of the specification, one row each.

The first tables restate the official audit suite (MUST and SHOULD); the later ones are requests that it
never sends.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.support.gateway_server import SmallGateway
from tests.support.small_schema import SECRET

GRAPHQL = "application/graphql-response+json"
JSON = "application/json"
EVENTS = "text/event-stream"
LEGACY, MODERN = {"Accept": JSON}, {"Accept": GRAPHQL}


@pytest.fixture
async def client(small_gateway: SmallGateway) -> AsyncIterator[httpx.AsyncClient]:
    """An in-process client with a token: the tables have many rows."""
    transport = httpx.ASGITransport(small_gateway.app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://gateway", headers={"Authorization": "Bearer ann"}
    ) as client:
        yield client


async def post(client: httpx.AsyncClient, body: Any, **headers: str) -> httpx.Response:
    """POST *body*: bytes as they are, others as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await client.post("/graphql", content=content, headers={"Content-Type": JSON, **headers})


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (GRAPHQL, GRAPHQL),
        (JSON, JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        (f"{GRAPHQL}, {JSON};q=0.9", GRAPHQL),
        (f"{JSON}, {GRAPHQL}", GRAPHQL),
        (f"{JSON}, {GRAPHQL};q=0.5", JSON),
        (f"{GRAPHQL};q=0, */*", JSON),
        ("Application/JSON; Charset=UTF-8", JSON),
        (f"{GRAPHQL}, application/graphql+json, {JSON}, {EVENTS}, multipart/mixed", GRAPHQL),
        (f"{EVENTS};q=0.5, {JSON}", JSON),
        (EVENTS, EVENTS),
        (f"{EVENTS}, {JSON};q=0.8", EVENTS),
    ],
)
async def test_accept_header_decides_the_media_type(
    client: httpx.AsyncClient, accept: str, media_type: str
) -> None:
    """A client that accepts JSON as well never gets a stream."""
    response = await post(client, {"query": "{ hello }"}, Accept=accept)

    assert response.status_code == 200
    assert f"{media_type}; charset=utf-8" == response.headers["content-type"]


async def test_missing_accept_header_gets_json(client: httpx.AsyncClient) -> None:
    """Old clients send none."""
    del client.headers["accept"]

    response = await post(client, {"query": "{ hello }"})

    assert f"{JSON}; charset=utf-8" == response.headers["content-type"]
    assert response.json()["data"] == {"hello": "hello world"}


@pytest.mark.parametrize("accept", ["text/html", "application/xml, image/*", f"{JSON};q=0"])
async def test_unsupported_accept_header_is_a_406(client: httpx.AsyncClient, accept: str) -> None:
    """With a body in JSON all the same."""
    response = await post(client, {"query": "{ hello }"}, Accept=accept)

    assert response.status_code == 406
    assert response.json()["errors"][0]["extensions"]["code"] == "NOT_ACCEPTABLE"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{ 'query': ]", "BAD_REQUEST"),
        (b"", "BAD_REQUEST"),
        (b"null", "BAD_REQUEST"),
        (b"42", "BAD_REQUEST"),
        (b'"{ hello }"', "BAD_REQUEST"),
        (b"true", "BAD_REQUEST"),
        (b"[]", "BAD_REQUEST"),
        (b'[{"query": "{ hello }"}]', "BAD_REQUEST"),
        (b'{"query": "{ hello }"} trailing', "BAD_REQUEST"),
        (b'{"query": "\xff"}', "BAD_REQUEST"),
        ('{"query": "{ hello }"}'.encode("utf-16"), "BAD_REQUEST"),
        (b'{"query": "{ hello }", "variables": {"a": NaN}}', "BAD_REQUEST"),
        (b'{"query": "{ hello }", "variables": {"a": Infinity}}', "BAD_REQUEST"),
        (b'{"query": "{ hello }", "variables": {"a": ' + b"1" * 5000 + b"}}", "BAD_REQUEST"),
        (b'{"query": "{ hello }", "variables": {"a": ' + b"[" * 100_000 + b"}}", "BAD_REQUEST"),
        (b'{"query": "{ hello }", "variables": {"a": "\\ud800"}}', "BAD_REQUEST"),
        *(
            (json.dumps({"query": "{ hello }", name: value}).encode(), "BAD_REQUEST")
            for name in ("query", "operationName", "variables", "extensions")
            for value in ("text", 0, False, ["array"], {"an": "object"})
            if not (name in ("query", "operationName") and value == "text")
            and not (name in ("variables", "extensions") and isinstance(value, dict))
        ),
    ],
)
async def test_malformed_request_is_a_400_in_json(
    client: httpx.AsyncClient, body: bytes, code: str
) -> None:
    """Whatever the bytes are: no 500, no page, no traceback."""
    for headers in (LEGACY, MODERN):
        response = await post(client, body, **headers)

        assert response.status_code == 400
        assert code == response.json()["errors"][0]["extensions"]["code"]
        assert "data" not in response.json()


@pytest.mark.parametrize("body", [{}, {"query": None}, {"query": ""}, {"qeury": "{ hello }"}])
async def test_request_without_document_is_a_400(
    client: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    """Under either media type."""
    for headers in (LEGACY, MODERN):
        response = await post(client, body, **headers)

        assert response.status_code == 400
        assert response.json()["errors"][0]["extensions"]["code"] == "BAD_REQUEST"


@pytest.mark.parametrize(
    "body",
    [
        {"query": "{ hello }", "operationName": None, "variables": None, "extensions": None},
        {"query": "query A { hello }", "operationName": "A"},
        {"query": "query ($n: String!) { hello(name: $n) }", "variables": {"n": "Ann"}},
        {"query": "{ hello }", "extensions": {"any": {"thing": 1}}},
        {"query": "{ hello }", "unknown": "is ignored"},
    ],
)
async def test_parameters_may_be_null_or_unknown(
    client: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    """Unknown ones are ignored."""
    for headers in (LEGACY, MODERN):
        response = await post(client, body, **headers)

        assert response.status_code == 200
        assert response.json()["data"]["hello"].startswith("hello ")


REQUEST_ERRORS = [
    ({"query": "{"}, "GRAPHQL_PARSE_FAILED"),
    ({"query": "{ 8f31403d }"}, "GRAPHQL_PARSE_FAILED"),
    ({"query": "{ unknown }"}, "GRAPHQL_VALIDATION_FAILED"),
    ({"query": "fragment F on Query { hello }"}, "GRAPHQL_VALIDATION_FAILED"),
    ({"query": "{ ...F } fragment F on Query { ...F }"}, "GRAPHQL_VALIDATION_FAILED"),
    ({"query": "query ($c: Colour!) { colour(of: $c) }"}, "BAD_USER_INPUT"),
    ({"query": "query ($c: Colour!) { colour(of: $c) }", "variables": {"c": 1}}, "BAD_USER_INPUT"),
    ({"query": "{ hello }", "operationName": "B"}, "OPERATION_RESOLUTION_FAILURE"),
    ({"query": "query A { hello } query B { hello }"}, "OPERATION_RESOLUTION_FAILURE"),
    ({"query": "subscription { count }"}, "SUBSCRIPTION_NEEDS_STREAM"),
]


@pytest.mark.parametrize(("body", "code"), REQUEST_ERRORS)
async def test_request_error_is_a_400_without_data(
    client: httpx.AsyncClient, body: dict[str, Any], code: str
) -> None:
    """Nothing was executed; under this media type only the server can have sent the status."""
    response = await post(client, body, **MODERN)

    assert response.status_code == 400
    assert code == response.json()["errors"][0]["extensions"]["code"]
    assert list(response.json()) == ["errors"]


@pytest.mark.parametrize(("body", "code"), REQUEST_ERRORS)
async def test_request_error_under_legacy_json_is_a_200(
    client: httpx.AsyncClient, body: dict[str, Any], code: str
) -> None:
    """Under application/json a 4xx could have come from any intermediary."""
    response = await post(client, body, **LEGACY)

    assert response.status_code == 200
    assert code == response.json()["errors"][0]["extensions"]["code"]
    assert "data" not in response.json()


async def test_field_error_is_a_200_with_partial_data(client: httpx.AsyncClient) -> None:
    """Under either media type."""
    for headers in (LEGACY, MODERN):
        response = await post(client, {"query": "{ hello refused }"}, **headers)

        assert response.status_code == 200
        assert response.json()["data"] == {"hello": "hello world", "refused": None}
        assert response.json()["errors"][0]["extensions"]["code"] == "FORBIDDEN"


async def test_failed_data_is_null_and_not_missing(
    client: httpx.AsyncClient,
) -> None:
    """It was executed: a client must be able to tell that from a request error."""
    response = await post(client, {"query": "{ fatal }"}, **MODERN)

    assert response.status_code == 200
    assert response.json()["data"] is None
    assert response.json()["errors"][0]["path"] == ["fatal"]


@pytest.mark.parametrize(
    "type_",
    [None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/json-seq",
     "application/json; charset=iso-8859-1"],
)  # fmt: skip
async def test_body_of_another_content_type_is_a_415(
    client: httpx.AsyncClient, type_: str | None
) -> None:
    """Only JSON in UTF-8 is accepted."""
    headers = {} if type_ is None else {"Content-Type": type_}

    response = await client.post("/graphql", content=b'{"query": "{ hello }"}', headers=headers)

    assert response.status_code == 415
    assert response.headers["accept-post"] == "application/json"


@pytest.mark.parametrize(
    "type_", ["application/json; charset=utf-8", 'Application/JSON; charset="UTF-8"']
)
async def test_content_type_is_case_insensitive(client: httpx.AsyncClient, type_: str) -> None:
    """Case and parameters do not matter."""
    response = await client.post(
        "/graphql",
        content='{"query": "{ hello(name: \\"Zoë\\") }"}',
        headers={"Content-Type": type_},
    )

    assert response.json()["data"] == {"hello": "hello Zoë"}


async def test_query_runs_by_get(client: httpx.AsyncClient) -> None:
    """URL-encoded; empty parameters count as absent."""
    query = {"query": "query A($n: String!) { hello(name: $n) }", "variables": '{"n": "Ann"}'}

    response = await client.get("/graphql", params={**query, "operationName": "", "extensions": ""})

    assert response.json()["data"] == {"hello": "hello Ann"}


@pytest.mark.parametrize("accept", [JSON, GRAPHQL])
async def test_mutation_by_get_is_a_405(client: httpx.AsyncClient, accept: str) -> None:
    """GET changes nothing; Allow names POST."""
    response = await client.get(
        "/graphql", params={"query": "mutation { add(a: 1, b: 2) }"}, headers={"Accept": accept}
    )

    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    assert response.json()["errors"][0]["extensions"]["code"] == "METHOD_NOT_ALLOWED"


@pytest.mark.parametrize(
    "params",
    [
        {"query": "{ hello }", "variables": "[]"},
        {"query": "{ hello }", "variables": "{"},
        {"query": "{ hello }", "extensions": "1"},
    ],
)
async def test_malformed_url_parameters_are_a_400(
    client: httpx.AsyncClient, params: dict[str, str]
) -> None:
    """As in a body."""
    response = await client.get("/graphql", params=params)

    assert response.status_code == 400


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
async def test_other_methods_are_a_405(client: httpx.AsyncClient, method: str) -> None:
    """Allow names the supported ones."""
    response = await client.request(method, "/graphql")

    assert response.status_code == 405
    assert response.headers["allow"] == "GET, POST"


async def test_preflight_of_an_unknown_origin_names_the_setting(client: httpx.AsyncClient) -> None:
    """A front-end engineer learns why the browser refuses to call."""
    asks = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    response = await client.options("/graphql", headers=asks)

    assert response.status_code == 405
    assert "BILLING_ALLOWED_ORIGINS" in response.json()["errors"][0]["message"]


async def test_too_large_body_is_a_413(client: httpx.AsyncClient) -> None:
    """By its Content-Length, or while it arrives."""

    async def endless() -> Any:
        for _ in range(1000):
            yield b" " * 1024
            await asyncio.sleep(0)

    announced = await post(client, b" " * 600_000)
    streamed = await client.post("/graphql", content=endless(), headers={"Content-Type": JSON})

    assert [announced.status_code, streamed.status_code] == [413, 413]
    assert announced.json()["errors"][0]["extensions"]["code"] == "PAYLOAD_TOO_LARGE"


async def test_missing_token_is_a_401(client: httpx.AsyncClient) -> None:
    """Before the body is read, with the scheme to use."""
    del client.headers["authorization"]

    response = await post(client, b"{nonsense")

    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


async def test_responses_are_not_cacheable_or_sniffable(client: httpx.AsyncClient) -> None:
    """No cache stores them, and no browser guesses their type."""
    for body in ({"query": "{ hello }"}, {"query": "{"}):
        response = await post(client, body)

        assert response.headers["cache-control"] == "no-store"
        assert response.headers["vary"] == "Accept"
        assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("query", ["{ fault }", "{ fatal }", "subscription { broken }"])
async def test_unexpected_error_is_masked_by_a_logged_reference(
    client: httpx.AsyncClient, query: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither the response nor the log has the exception's text, which may contain anything."""
    response = await post(client, {"query": query}, Accept=EVENTS)

    data = [
        json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")
    ]
    error = data[-1]["errors"][0]
    logged = "".join(capfd.readouterr())
    assert error["extensions"]["code"] == "INTERNAL_SERVER_ERROR"
    assert error["extensions"]["reference"] in error["message"]
    assert error["extensions"]["reference"] in logged
    assert SECRET not in response.text + logged


async def test_batches_are_a_400(client: httpx.AsyncClient) -> None:
    """One request is one operation: limits and charges count by it."""
    response = await post(client, [{"query": "{ hello }"}, {"query": "{ hello }"}])

    assert response.status_code == 400
