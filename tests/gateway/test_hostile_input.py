"""What was written to hurt is refused, quickly, and hurts nobody else."""

import asyncio
import gc
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
from graphql import GraphQLError, get_introspection_query

from gateway.graphql.admission.documents import Documents, Invalid
from gateway.graphql.admission.limits import Limits
from tests.gateway.test_websocket import Peer, connected, subscribe
from tests.support.gateway_server import CORE
from tests.support.hostile_corpus import bodies, documents

BLOCKED = 0.050
# A busy machine slows everybody's work down; what blocks by itself does so each time.
ATTEMPTS = 4
CALLS = 200_000


class Pulse:
    """The longest time that the loop's thread worked on one thing, in seconds of its own CPU."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def beat(self) -> None:
        """Run on every turn of the loop."""
        while True:
            before = time.thread_time()
            await asyncio.sleep(0)
            self.longest = max(self.longest, time.thread_time() - before)


@pytest.fixture(autouse=True)
def frozen_heap() -> Iterator[None]:
    """As the gateway does at its start: a full collection of everything pytest holds takes 100 ms."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@asynccontextmanager
async def pulse() -> AsyncIterator[Pulse]:
    """Feels the loop's pulse while inside."""
    felt = Pulse()
    beating = asyncio.create_task(felt.beat())
    try:
        yield felt
    finally:
        beating.cancel()


async def test_no_body_of_32_kb_blocks_the_loop_or_breaks_the_server(
    client: httpx.AsyncClient,
) -> None:
    """Others on the same process wait less than 50 ms, and nothing is our fault."""
    blocked, broken = {}, {}
    for name, body in bodies():
        for _ in range(ATTEMPTS):
            async with pulse() as felt:
                answer = await client.post(
                    "/graphql", content=body, headers={"Content-Type": "application/json"}
                )
            if felt.longest < BLOCKED:
                break
        else:
            blocked[name] = felt.longest
        if answer.status_code >= 500 or "INTERNAL_SERVER_ERROR" in answer.text:
            broken[name] = answer.text

    assert blocked == {}
    assert broken == {}


async def test_no_document_of_32_kb_takes_more_than_so_many_steps() -> None:
    """Counted, not timed: calls of functions from one turn of the loop to the next, at 10 million a second."""
    steps = {name: _most_calls(document) for name, document in documents()}

    assert {name: calls for name, calls in steps.items() if calls > CALLS} == {}
    assert max(steps.values()) > CALLS / 10, "nothing was counted"


def _most_calls(document: str) -> int:
    """The most calls that reading *document* makes between two turns of the loop."""
    calls = most = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    reading = Documents(CORE, Limits()).read(document, suggestions=True).__await__()
    sys.setprofile(count)
    try:
        for _ in reading:
            most, calls = max(most, calls), 0
    except (Invalid, GraphQLError):
        pass
    finally:
        sys.setprofile(None)
    return max(most, calls)


async def test_no_document_of_32_kb_hurts_a_socket(address: str) -> None:
    """The same documents over WebSocket: each is answered, the socket lives on."""
    async with connected(address) as peer:
        await peer.begin()
        for number, (_, document) in enumerate(documents()):
            await _asked(peer, str(number), document)
        [answer, _] = await peer.run("last", "{ hello }")

    assert answer["payload"]["data"] == {"hello": "hello world"}


async def _asked(peer: Peer, id_: str, document: str) -> None:
    await peer.say(subscribe(id_, document))
    while (await peer.hear())["type"] == "next":
        pass


@pytest.mark.parametrize(
    ("limit", "document"),
    [
        ("depth", "{ leaf " + "{ again " * 16 + "{ id }" + " }" * 16 + "}"),
        ("aliases", "{" + " ".join(f"a{n}: leaf {{ id }}" for n in range(51)) + "}"),
        ("directives", "{ hello " + "@skip(if: false) " * 51 + "}"),
        ("operations", " ".join(f"query Q{n} {{ hello }}" for n in range(11))),
        ("overlaps", "{" + "hello " * 56 + "}"),
        (
            "fragments",
            "{ hello }" + " ".join(f"fragment F{n} on Leaf {{ id }}" for n in range(101)),
        ),
        ("fields", "{" + " ".join(f"f{n}" for n in range(1001)) + "}"),
        ("spreads", "{" + "...F " * 501 + "} fragment F on Query { ...F }"),
    ],
)
async def test_each_limit_is_named_when_it_is_passed(
    client: httpx.AsyncClient, limit: str, document: str
) -> None:
    """So that its author knows what to cut."""
    answer = await client.post("/graphql", json={"query": document})

    error = answer.json()["errors"][0]
    assert error["extensions"]["code"] == "QUERY_TOO_COMPLEX"
    assert f"({limit}: {getattr(Limits(), limit)})" in error["message"]


async def test_fragments_count_as_often_as_they_are_spread(client: httpx.AsyncClient) -> None:
    """Forty aliases in a fragment that is spread twice are eighty."""
    aliases = " ".join(f"a{n}: id" for n in range(40))
    document = f"{{ one: leaf {{ ...F }} two: leaf {{ ...F }} }} fragment F on Leaf {{ {aliases} }}"

    answer = await client.post("/graphql", json={"query": document})

    assert "aliases" in answer.json()["errors"][0]["message"]


async def test_the_largest_introspection_is_within_the_limits() -> None:
    """GraphiQL, code generators and Relay's compiler send it."""
    query = get_introspection_query(
        descriptions=True,
        specified_by_url=True,
        directive_is_repeatable=True,
        schema_description=True,
        input_value_deprecation=True,
    )

    document = await Documents(CORE, Limits()).read(query, suggestions=False)

    assert document.operation(None).introspects


async def test_a_document_is_parsed_and_validated_once() -> None:
    """Two thirds of a query's time are spent on that."""
    documents = Documents(CORE, Limits(), kept=2)

    first = await documents.read("{ hello }", suggestions=False)
    await documents.read("{ leaf { id } }", suggestions=False)

    assert await documents.read("{ hello }", suggestions=False) is first
    await documents.read("{ leaf { name } }", suggestions=False)
    assert await documents.read("{ hello }", suggestions=False) is first
