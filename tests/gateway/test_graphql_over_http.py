"""GraphQL over HTTP: what the specification asks of a server, one row a demand.

The first tables restate the demands of the official audit suite (MUST and SHOULD) in our own words;
the later ones are what it never sends.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.support.gateway_server import Edge
from tests.support.small_schema import SECRET

GRAPHQL = "application/graphql-response+json"
JSON = "application/json"
EVENTS = "text/event-stream"
LEGACY, MODERN = {"Accept": JSON}, {"Accept": GRAPHQL}


@pytest.fixture
async def client(edge: Edge) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody with a token, in the application's own process: these tables have many rows."""
    transport = httpx.ASGITransport(edge.app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://edge", headers={"Authorization": "Bearer ann"}
    ) as somebody:
        yield somebody


async def post(client: httpx.AsyncClient, body: Any, **headers: str) -> httpx.Response:
    """Send *body* (JSON-able, or bytes as they are) by POST."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await client.post("/graphql", content=content, headers={"Content-Type": JSON, **headers})


@pytest.mark.parametrize(
    ("accept", "answered"),
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
async def test_the_answer_is_of_the_type_that_was_asked_for(
    client: httpx.AsyncClient, accept: str, answered: str
) -> None:
    """A stream is never forced on a client that takes JSON as gladly."""
    answer = await post(client, {"query": "{ hello }"}, Accept=accept)

    assert answer.status_code == 200
    assert f"{answered}; charset=utf-8" == answer.headers["content-type"]


async def test_a_client_that_says_nothing_gets_json(client: httpx.AsyncClient) -> None:
    """Old clients send no Accept header."""
    del client.headers["accept"]

    answer = await post(client, {"query": "{ hello }"})

    assert f"{JSON}; charset=utf-8" == answer.headers["content-type"]
    assert answer.json()["data"] == {"hello": "hello world"}


@pytest.mark.parametrize("accept", ["text/html", "application/xml, image/*", f"{JSON};q=0"])
async def test_what_cannot_be_written_is_not_acceptable(
    client: httpx.AsyncClient, accept: str
) -> None:
    """406, and as JSON all the same."""
    answer = await post(client, {"query": "{ hello }"}, Accept=accept)

    assert answer.status_code == 406
    assert answer.json()["errors"][0]["extensions"]["code"] == "NOT_ACCEPTABLE"


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
async def test_an_ill_formed_request_is_a_400_in_json(
    client: httpx.AsyncClient, body: bytes, code: str
) -> None:
    """Whatever the bytes are: no 500, no page, no traceback."""
    for headers in (LEGACY, MODERN):
        answer = await post(client, body, **headers)

        assert answer.status_code == 400
        assert code == answer.json()["errors"][0]["extensions"]["code"]
        assert "data" not in answer.json()


@pytest.mark.parametrize("body", [{}, {"query": None}, {"query": ""}, {"qeury": "{ hello }"}])
async def test_a_request_without_a_document_is_a_400(
    client: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    """Nothing in it is GraphQL, so its status says so to everybody."""
    for headers in (LEGACY, MODERN):
        answer = await post(client, body, **headers)

        assert answer.status_code == 400
        assert answer.json()["errors"][0]["extensions"]["code"] == "BAD_REQUEST"


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
async def test_every_parameter_may_be_there_or_null(
    client: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    """As JSON objects and strings, with whatever else a client adds."""
    for headers in (LEGACY, MODERN):
        answer = await post(client, body, **headers)

        assert answer.status_code == 200
        assert answer.json()["data"]["hello"].startswith("hello ")


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
async def test_a_request_error_is_a_400_without_data(
    client: httpx.AsyncClient, body: dict[str, Any], code: str
) -> None:
    """Nothing was executed, and a status says so where nobody in between could have meant it."""
    answer = await post(client, body, **MODERN)

    assert answer.status_code == 400
    assert code == answer.json()["errors"][0]["extensions"]["code"]
    assert list(answer.json()) == ["errors"]


@pytest.mark.parametrize(("body", "code"), REQUEST_ERRORS)
async def test_a_request_error_is_a_200_for_legacy_clients(
    client: httpx.AsyncClient, body: dict[str, Any], code: str
) -> None:
    """Under application/json a 4xx could have come from any box in between."""
    answer = await post(client, body, **LEGACY)

    assert answer.status_code == 200
    assert code == answer.json()["errors"][0]["extensions"]["code"]
    assert "data" not in answer.json()


async def test_a_field_error_is_a_200_with_data(client: httpx.AsyncClient) -> None:
    """What could be answered is answered, under either type."""
    for headers in (LEGACY, MODERN):
        answer = await post(client, {"query": "{ hello refused }"}, **headers)

        assert answer.status_code == 200
        assert answer.json()["data"] == {"hello": "hello world", "refused": None}
        assert answer.json()["errors"][0]["extensions"]["code"] == "FORBIDDEN"


async def test_data_that_failed_as_a_whole_is_null_and_not_missing(
    client: httpx.AsyncClient,
) -> None:
    """It was executed: a client must be able to tell that from a request error."""
    answer = await post(client, {"query": "{ fatal }"}, **MODERN)

    assert answer.status_code == 200
    assert answer.json()["data"] is None
    assert answer.json()["errors"][0]["path"] == ["fatal"]


@pytest.mark.parametrize(
    "type_",
    [None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/json-seq",
     "application/json; charset=iso-8859-1"],
)  # fmt: skip
async def test_a_body_of_another_type_is_a_415(
    client: httpx.AsyncClient, type_: str | None
) -> None:
    """JSON in UTF-8 is what can be read."""
    headers = {} if type_ is None else {"Content-Type": type_}

    answer = await client.post("/graphql", content=b'{"query": "{ hello }"}', headers=headers)

    assert answer.status_code == 415
    assert answer.headers["accept-post"] == "application/json"


@pytest.mark.parametrize(
    "type_", ["application/json; charset=utf-8", 'Application/JSON; charset="UTF-8"']
)
async def test_content_types_are_read_as_http_writes_them(
    client: httpx.AsyncClient, type_: str
) -> None:
    """Case and parameters do not matter."""
    answer = await client.post(
        "/graphql",
        content='{"query": "{ hello(name: \\"Zoë\\") }"}',
        headers={"Content-Type": type_},
    )

    assert answer.json()["data"] == {"hello": "hello Zoë"}


async def test_a_query_can_be_sent_by_get(client: httpx.AsyncClient) -> None:
    """URL-encoded, with empty parameters taken as absent."""
    query = {"query": "query A($n: String!) { hello(name: $n) }", "variables": '{"n": "Ann"}'}

    answer = await client.get("/graphql", params={**query, "operationName": "", "extensions": ""})

    assert answer.json()["data"] == {"hello": "hello Ann"}


@pytest.mark.parametrize("accept", [JSON, GRAPHQL])
async def test_a_mutation_by_get_is_a_405(client: httpx.AsyncClient, accept: str) -> None:
    """GET changes nothing, and POST is named as the way."""
    answer = await client.get(
        "/graphql", params={"query": "mutation { add(a: 1, b: 2) }"}, headers={"Accept": accept}
    )

    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert answer.json()["errors"][0]["extensions"]["code"] == "METHOD_NOT_ALLOWED"


@pytest.mark.parametrize(
    "params",
    [
        {"query": "{ hello }", "variables": "[]"},
        {"query": "{ hello }", "variables": "{"},
        {"query": "{ hello }", "extensions": "1"},
    ],
)
async def test_parameters_in_a_url_are_as_strict(
    client: httpx.AsyncClient, params: dict[str, str]
) -> None:
    """400, as in a body."""
    answer = await client.get("/graphql", params=params)

    assert answer.status_code == 400


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
async def test_other_methods_are_a_405(client: httpx.AsyncClient, method: str) -> None:
    """And the answer says which there are."""
    answer = await client.request(method, "/graphql")

    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, POST"


async def test_a_body_that_is_too_long_is_a_413(client: httpx.AsyncClient) -> None:
    """Said to be long, or found to be long while it comes in."""

    async def endless() -> Any:
        for _ in range(1000):
            yield b" " * 1024
            await asyncio.sleep(0)

    announced = await post(client, b" " * 600_000)
    streamed = await client.post("/graphql", content=endless(), headers={"Content-Type": JSON})

    assert [announced.status_code, streamed.status_code] == [413, 413]
    assert announced.json()["errors"][0]["extensions"]["code"] == "PAYLOAD_TOO_LARGE"


async def test_nobody_is_answered_without_a_token(client: httpx.AsyncClient) -> None:
    """401 before anything is read, with the scheme to use."""
    del client.headers["authorization"]

    answer = await post(client, b"{nonsense")

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


async def test_answers_are_nobody_elses(client: httpx.AsyncClient) -> None:
    """No cache keeps them, and no browser guesses what they are."""
    for body in ({"query": "{ hello }"}, {"query": "{"}):
        answer = await post(client, body)

        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["vary"] == "Accept"
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("query", ["{ fault }", "{ fatal }", "subscription { broken }"])
async def test_a_fault_is_told_as_a_reference_that_the_log_carries(
    client: httpx.AsyncClient, query: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither the wire nor the log holds the exception's text, which may be anything."""
    answer = await post(client, {"query": query}, Accept=EVENTS)

    data = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    error = data[-1]["errors"][0]
    logged = "".join(capfd.readouterr())
    assert error["extensions"]["code"] == "INTERNAL_SERVER_ERROR"
    assert error["extensions"]["reference"] in error["message"]
    assert error["extensions"]["reference"] in logged
    assert SECRET not in answer.text + logged


async def test_batches_are_refused(client: httpx.AsyncClient) -> None:
    """One request, one operation: limits and allowances count by it."""
    answer = await post(client, [{"query": "{ hello }"}, {"query": "{ hello }"}])

    assert answer.status_code == 400
