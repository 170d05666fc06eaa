"""Admission: work is charged before it is done and corrected after it, and no text of a caller blocks others."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from graphql import get_introspection_query

from gateway.graphql.admission.admission import (
    CHARACTERS_PER_POINT,
    MIN_PREPARATION_COST,
    VALUES_PER_POINT,
)
from gateway.graphql.admission.documents import DocumentCache, InvalidDocument
from gateway.graphql.admission.limits import Limits
from gateway.graphql.execution.timeout import MAX_LOCATED_ERRORS
from tests.support.gateway_server import CORE, SmallGateway, http_client, serve
from tests.support.wait import wait_until
from tests.support.websocket_client import connect, subscribe

KB_200 = 200_000
NEVER: Any = 0.001  # points a second: however slow the machine, nothing comes back meanwhile
INVALID = "{" + " ".join(f"a{n}: hello" for n in range(45)) + " unknown }"


async def post(client: httpx.AsyncClient, query: str, **params: Any) -> dict[str, Any]:
    """Send *query* and return the response body."""
    response = await client.post("/graphql", json={"query": query, **params})
    body: dict[str, Any] = response.json()
    return body


def code(body: dict[str, Any]) -> str:
    """Return the code of a body's first error; empty if it has data."""
    return "" if "data" in body else str(body["errors"][0]["extensions"]["code"])


async def available(client: httpx.AsyncClient) -> int:
    """Return what the caller has left, with a document that is known."""
    for _ in range(2):
        body = await post(client, "{ hello }")
    left: int = body["extensions"]["cost"]["throttleStatus"]["currentlyAvailable"]
    return left


@pytest.mark.parametrize("introspects", [True, False])
async def test_long_operation_name_is_refused(
    small_gateway: SmallGateway, *, introspects: bool
) -> None:
    """Whatever the caller wrote is neither searched for patterns nor repeated."""
    small_gateway.caller = lambda caller: replace(caller, may_introspect=introspects)
    name = ('Did you mean "' * KB_200)[:KB_200]
    async with http_client(small_gateway) as client:
        refused = await post(client, "{ __typename }", operationName=name)
        unknown = await post(client, "{ __typename }", operationName=name[:255])

    assert code(refused) == "BAD_REQUEST"
    assert code(unknown) == "OPERATION_RESOLUTION_FAILURE"
    assert max(len(json.dumps(body)) for body in (refused, unknown)) < 400


async def test_messages_repeat_little_of_what_a_caller_wrote(client: httpx.AsyncClient) -> None:
    """A message says what is wrong; a name of 30,000 characters does not help."""
    name = "n" * 30_000
    documents = [
        f"{{ {name} }}",
        f"{{ hello({name}: 1) }}",
        f"query {name} {{ x }}",
        f"{{ ...{name} }}",
    ]
    for document in documents:
        body = await post(client, document)

        assert all(len(error["message"]) <= 1_000 for error in body["errors"])


async def test_invalid_documents_use_up_the_allowance(small_gateway: SmallGateway) -> None:
    """Each takes 20 ms; a caller with an empty bucket has none of them looked at."""
    price = len(INVALID) // CHARACTERS_PER_POINT
    small_gateway.capacity, small_gateway.rate = 5 * price, NEVER
    async with http_client(small_gateway) as client:
        codes = [code(await post(client, INVALID)) for _ in range(8)]

    assert codes == ["GRAPHQL_VALIDATION_FAILED"] * 5 + ["RATE_LIMITED"] * 3


@pytest.mark.parametrize(
    "document",
    [
        "{ hello ",
        "{ leaf" + "{again" * 30 + "{id}" + "}" * 31,
        "{ leaves(first: 101) { nodes { id } } }",
    ],
)
async def test_every_refused_document_is_charged(
    small_gateway: SmallGateway, document: str
) -> None:
    """One that cannot be parsed, one that passes a limit, and one that is too expensive."""
    small_gateway.rate = NEVER
    async with http_client(small_gateway) as client:
        before = await available(client)
        for _ in range(3):
            assert code(await post(client, document))
        charged = before - await available(client)

    known = document.startswith("{ leaves")  # it is valid, and was prepared once
    assert charged >= MIN_PREPARATION_COST * (1 if known else 3)


async def test_known_document_costs_what_it_selects(small_gateway: SmallGateway) -> None:
    """Only the first caller of a process pays for preparing it, at least its length."""
    small_gateway.rate = NEVER
    document = "{ hello }" + "#" * 5_000
    async with http_client(small_gateway) as client:
        before = await available(client)
        await post(client, document)
        first = before - await available(client)
        await post(client, document)
        second = before - first - await available(client)

    assert len(document) // CHARACTERS_PER_POINT <= first
    assert second <= 5


async def test_valid_document_does_not_get_its_preparation_back(
    small_gateway: SmallGateway,
) -> None:
    """A page that turns out empty is refunded, the work on its document is not."""
    small_gateway.rate = NEVER
    async with http_client(small_gateway) as client:
        before = await available(client)
        for number in range(10):
            await post(client, f"{{ a{number}: leaves(first: 100) {{ nodes {{ id }} }} }}")

        assert before - await available(client) >= 10 * MIN_PREPARATION_COST


async def test_documents_of_one_group_wait_for_each_other() -> None:
    """A flood of unknown documents delays somebody else's by one document."""
    documents = DocumentCache(CORE, Limits())
    order: list[str] = []

    async def prepare(text: str, group: str) -> None:
        await documents.prepare(text, group=group)
        order.append(group)

    flood = [prepare(f"{{ a{number}: hello }}", "flood") for number in range(20)]
    tasks = [asyncio.create_task(coroutine) for coroutine in flood]
    await asyncio.sleep(0)
    await asyncio.gather(*tasks, prepare("{ leaf { id } }", "calm"))

    assert order.index("calm") <= 2


async def test_preparing_documents_leaves_every_second_iteration_to_others() -> None:
    """No two documents are worked on in one iteration of the event loop."""
    documents = DocumentCache(CORE, Limits())
    iterations = 0

    async def count() -> None:
        nonlocal iterations
        while True:
            await asyncio.sleep(0)
            iterations += 1

    counting = asyncio.create_task(count())
    flood = [
        documents.prepare(INVALID.replace("unknown", f"unknown{n}"), group=str(n))
        for n in range(20)
    ]
    results = await asyncio.gather(*flood, return_exceptions=True)
    counting.cancel()

    assert all(isinstance(result, InvalidDocument) for result in results)
    assert iterations >= 2 * len(flood)


async def test_same_document_is_prepared_once_for_all_who_wait() -> None:
    """A panel's document after a restart, asked for by everybody at once."""
    documents = DocumentCache(CORE, Limits())

    prepared = await asyncio.gather(
        *(documents.prepare("{ hello }", group=str(n)) for n in range(5))
    )

    assert len({id(document) for document in prepared}) == 1


async def test_long_answer_is_charged_in_full(small_gateway: SmallGateway) -> None:
    """A list without a size costs what it holds, not what was guessed."""
    small_gateway.rate = NEVER
    async with http_client(small_gateway) as client:
        before = await available(client)
        cost = (await post(client, "{ crowd { id } }"))["extensions"]["cost"]

        assert (cost["requestedQueryCost"], cost["actualQueryCost"]) == (11, 301)
        assert before - await available(client) >= 301


async def test_failed_answer_is_not_refunded(small_gateway: SmallGateway) -> None:
    """One null may stand where a thousand objects were made."""
    small_gateway.rate = NEVER
    async with http_client(small_gateway) as client:
        before = await available(client)
        body = await post(client, "{ leaves(first: 100) { nodes { id } } fatal }")

        assert body["data"] is None
        assert before - await available(client) >= 102


@pytest.mark.parametrize("transport", ["http", "websocket"])
async def test_leaving_early_is_no_discount(small_gateway: SmallGateway, transport: str) -> None:
    """Whoever hangs up or completes pays for what was asked for."""
    small_gateway.rate = NEVER
    document = "{ leaves(first: 100) { nodes { id } } slow }"
    async with http_client(small_gateway) as client:
        before = await available(client)
        if transport == "http":
            with pytest.raises(httpx.ReadTimeout):
                await client.post("/graphql", json={"query": document}, timeout=0.1)
        else:
            async with connect(client.base_url.netloc.decode()) as ws_client:
                await ws_client.init()
                await ws_client.send(subscribe("1", document))
                await wait_until(lambda: "slow begun" in small_gateway.recorder.entries)
                await ws_client.send({"id": "1", "type": "complete"})
        await wait_until(lambda: "slow cancelled" in small_gateway.recorder.entries)

        assert before - await available(client) >= 102


@pytest.fixture
async def introspecting(small_gateway: SmallGateway) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a bucket that hardly refills."""
    small_gateway.rate = NEVER
    async with http_client(small_gateway) as client:
        yield client


async def test_introspection_costs_its_objects(introspecting: httpx.AsyncClient) -> None:
    """It is priced by what the schema has, and answered beside the event loop."""
    body = await post(introspecting, get_introspection_query())
    cost = body["extensions"]["cost"]

    assert body["data"]["__schema"]["queryType"] == {"name": "Query", "kind": "OBJECT"}
    assert 250 < cost["actualQueryCost"] <= cost["requestedQueryCost"] < 2_000


async def test_wide_introspection_is_too_complex(introspecting: httpx.AsyncClient) -> None:
    """Forty aliases of `fields` within `types` made 27,000 objects in 4 KB."""
    aliases = " ".join(f"a{n}: fields {{ type {{ name }} }}" for n in range(40))
    wide = f"{{ __schema {{ types {{ {aliases} }} }} }}"
    values = (
        "{ __schema { types { "
        + "name " * 50
        + " } } "
        + '__type(name: "Leaf") { name } ' * 3
        + "}"
    )

    assert code(await post(introspecting, wide)) == "QUERY_TOO_COMPLEX"
    assert code(await post(introspecting, values)) == ""


async def test_introspection_is_an_operation_of_its_own(introspecting: httpx.AsyncClient) -> None:
    """It runs in a thread, where nothing else may."""
    mixed = '{ ...Q hello } fragment Q on Query { __type(name: "Leaf") { name } }'

    assert code(await post(introspecting, mixed)) == "QUERY_TOO_COMPLEX"
    assert code(await post(introspecting, mixed.replace("hello", "__typename"))) == ""


async def test_names_and_values_do_not_multiply(client: httpx.AsyncClient) -> None:
    """An alias is repeated for each object of the answer, and so is each value."""
    long = f"{{ leaves(first: 100) {{ nodes {{ {'n' * 300}: id }} }} }}"
    wide = (
        "{"
        + " ".join(
            f"l{n}: leaves(first: 100) {{ nodes {{ id name __typename ...F }} }}" for n in range(40)
        )
        + "} fragment F on Leaf { ... on Leaf { id name __typename } ... { id name __typename } }"
    )

    assert "name_length" in (await post(client, long))["errors"][0]["message"]
    assert "36000 values" in (await post(client, wide))["errors"][0]["message"]


async def test_many_errors_are_located_for_the_first_alone(client: httpx.AsyncClient) -> None:
    """Each location counts the lines before it: 4,500 errors behind 30,000 lines took minutes."""
    body = await post(client, "\n" * 1_900 + "{ faults { text } }")
    too_long = await post(client, "\n" * 2_001 + "{ hello }")

    located = [error for error in body["errors"] if "locations" in error]
    assert (len(body["errors"]), len(located)) == (300, MAX_LOCATED_ERRORS)
    assert located[0]["locations"][0]["line"] == 1_901
    assert code(too_long) == "QUERY_TOO_COMPLEX"


async def test_flood_over_a_socket_is_charged_like_one_over_http(
    small_gateway: SmallGateway,
) -> None:
    """The bucket is the person's, whatever the transport."""
    price = len(INVALID) // CHARACTERS_PER_POINT
    small_gateway.capacity, small_gateway.rate = 3 * price, NEVER
    async with serve(small_gateway.app) as address, connect(address) as ws_client:
        await ws_client.init()
        codes = []
        for number in range(5):
            [error] = await ws_client.execute(str(number), INVALID)
            codes.append(error["payload"][0]["extensions"]["code"])

    assert codes == ["GRAPHQL_VALIDATION_FAILED"] * 3 + ["RATE_LIMITED"] * 2


@pytest.mark.parametrize(
    ("value", "limit"),
    [([1] * 25_001, "variable_values"), ([[1] * 300] * 100, "variable_values"), ({f"k{n}": 1 for n in range(101)}, "keys")],
)  # fmt: skip
async def test_variables_have_a_bounded_number_of_values(
    client: httpx.AsyncClient, value: object, limit: str
) -> None:
    """Each is coerced before anything runs, and a suggestion is sought for each unknown key."""
    query = "query ($n: String) { hello(name: $n) }"
    body = await post(client, query, variables={"n": value})

    assert code(body) == "QUERY_TOO_COMPLEX"
    assert f"({limit}: " in body["errors"][0]["message"]


async def test_many_variable_values_are_charged(small_gateway: SmallGateway) -> None:
    """A batch of usage costs what its coercion does."""
    small_gateway.rate = NEVER
    query = "query ($n: String) { hello(name: $n) }"
    async with http_client(small_gateway) as client:
        before = await available(client)
        for _ in range(2):
            await post(client, query, variables={"n": [1] * 20_000})

        assert before - await available(client) >= 2 * 20_000 // VALUES_PER_POINT
