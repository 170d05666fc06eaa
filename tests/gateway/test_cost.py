"""What operations cost, who pays, and what happens when an allowance is used up."""

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from gateway.graphql.admission.documents import Documents
from gateway.graphql.admission.limits import Limits
from gateway.graphql.admission.rate_limiter import EdgeStore
from tests.gateway.test_websocket import connected, subscribe
from tests.gateway.waiting import until
from tests.support.gateway_server import CORE, Edge, client_of, serve


@pytest.mark.parametrize(
    ("document", "variables", "cost"),
    [
        ("{ hello }", {}, 1),
        ("{ leaf { id name } }", {}, 2),
        ("{ leaf { again { id } } }", {}, 3),
        ("mutation { add(a: 1, b: 2) }", {}, 11),
        ("mutation { a: add(a: 1, b: 2) b: add(a: 1, b: 2) }", {}, 21),
        ("{ leaves(first: 7) { nodes { id } } }", {}, 1 + 1 + 7),
        ("{ leaves { nodes { id } } }", {}, 1 + 1 + 20),
        ("{ leaves(first: 0) { nodes { id } } }", {}, 1 + 1),
        ("{ leaves(first: -5) { nodes { id } } }", {}, 1 + 1),
        ("query ($n: Int) { leaves(first: $n) { nodes { id } } }", {"n": 5}, 1 + 1 + 5),
        ("query ($n: Int) { leaves(first: $n) { nodes { id } } }", {"n": 5.0}, 1 + 1 + 5),
        ("query ($n: Int = 3) { leaves(first: $n) { nodes { id } } }", {}, 1 + 1 + 3),
        ("query ($n: Int) { leaves(first: $n) { nodes { id } } }", {}, 1 + 1 + 20),
        ("{ leaves(last: 50) { nodes { id } } }", {}, 1 + 1 + 50),
        ("query ($n: Int) { leaves(last: $n) { nodes { id } } }", {"n": 50}, 1 + 1 + 50),
        ("query ($n: Int) { leaves(first: 50, last: $n) { nodes { id } } }", {}, 1 + 1 + 50),
        ("{ leaves(first: 4) { nodes { again { id } } } }", {}, 1 + 1 + 4 * 2),
        ("{ leaves(first: 4) { ...N } } fragment N on LeafConnection { nodes { id } }", {}, 1 + 1 + 4),
        ("{ leaves(first: 4) { ... { ... on LeafConnection { nodes { id } } } } }", {}, 1 + 1 + 4),
        ("{ __schema { types { name fields { name } } } }", {}, 1 + 50),
        ("{ __typename hello }", {}, 1),
        ("subscription { count }", {}, 1),
    ],
)  # fmt: skip
async def test_a_price_counts_objects_and_multiplies_by_pages(
    document: str, variables: dict[str, Any], cost: int
) -> None:
    """Before anything runs, with fragments and variables filled in."""
    operation = (await Documents(CORE, Limits()).read(document, suggestions=False)).operation(None)

    assert cost == operation.price.of(variables, page=100)


async def asked(client: httpx.AsyncClient, query: str, **variables: Any) -> dict[str, Any]:
    """The answer to *query*."""
    answer = await client.post("/graphql", json={"query": query, "variables": variables})
    body: dict[str, Any] = answer.json()
    return body


async def test_every_answer_says_what_it_cost(client: httpx.AsyncClient) -> None:
    """In the words that tools know from Shopify's API."""
    cost = (await asked(client, "{ leaves(first: 50) { nodes { id } } }"))["extensions"]["cost"]

    assert cost["requestedQueryCost"] == 52
    assert cost["actualQueryCost"] == 5
    assert cost["throttleStatus"] == {
        "maximumAvailable": 20_000,
        "currentlyAvailable": 19_948,
        "restoreRate": 1_000,
    }


async def test_what_was_not_used_is_given_back(edge: Edge) -> None:
    """A page of a hundred of which three exist costs three."""
    edge.store = EdgeStore(edge.store._redis, capacity=1_000, rate=1)
    async with client_of(edge) as client:
        await asked(client, "{ leaves(first: 100) { nodes { id } } }")
        cost = (await asked(client, "{ hello }"))["extensions"]["cost"]

    assert 1_000 - 5 - 1 <= cost["throttleStatus"]["currentlyAvailable"] <= 1_000


@pytest.mark.parametrize(
    ("query", "variables"),
    [
        ("{ leaves(first: 101) { nodes { id } } }", {}),
        ("query ($n: Int) { leaves(first: $n) { nodes { id } } }", {"n": 101}),
        ("{ leaves(first: 100) { nodes { " + "again { " * 10 + "id" + " }" * 10 + " } } leaf { id }"
         + " ".join(f"l{n}: leaves(first: 100) {{ nodes {{ again {{ id }} }} }}" for n in range(25)) + "}", {}),
    ],
)  # fmt: skip
async def test_what_costs_too_much_does_not_run(
    client: httpx.AsyncClient, edge: Edge, query: str, variables: dict[str, Any]
) -> None:
    """Neither a page that is too long nor too many of them; nothing is charged for the refusal."""
    body = await asked(client, query, **variables)

    assert body["errors"][0]["extensions"]["code"] == "QUERY_TOO_COMPLEX"
    assert "data" not in body
    assert edge.events.contexts == []


async def test_a_used_up_allowance_is_a_429_that_says_when_to_come_back(edge: Edge) -> None:
    """Under either media type, and others are not affected."""
    edge.store = EdgeStore(edge.store._redis, capacity=30, rate=10)
    query = {"query": "mutation { add(a: 1, b: 2) }"}
    async with client_of(edge) as client:
        statuses = [(await client.post("/graphql", json=query)).status_code for _ in range(2)]
        refused = await client.post("/graphql", json=query)
        other = await client.post("/graphql", json=query, headers={"Authorization": "Bearer bob"})

    assert [*statuses, refused.status_code, other.status_code] == [200, 200, 429, 200]
    assert refused.json()["errors"][0]["extensions"]["code"] == "RATE_LIMITED"
    assert 1 <= int(refused.headers["retry-after"]) <= 2


async def test_an_allowance_is_shared_by_processes_and_transports(edge: Edge) -> None:
    """Opening a socket, or meeting another process, gives nobody a second one."""
    edge.store = EdgeStore(edge.store._redis, capacity=30, rate=1)
    async with client_of(edge) as client:
        for _ in range(2):
            await asked(client, "mutation { add(a: 1, b: 2) }")
    async with serve(edge.app) as address, connected(address) as peer:
        await peer.begin()
        [error] = await peer.run("1", "mutation { add(a: 1, b: 2) }")

    assert error["payload"][0]["extensions"]["code"] == "RATE_LIMITED"


async def test_an_allowance_comes_back_with_time(redis: Redis) -> None:
    """At its rate, up to its size, by Redis's clock."""
    store = EdgeStore(redis, capacity=10, rate=100)

    emptied = await store.spend("ann", 10)
    refused = await store.spend("ann", 10)
    assert (emptied.available, emptied.wait, refused.wait) == (0, 0, 1)

    async with asyncio.timeout(5):
        while (await store.spend("ann", 10)).wait:  # noqa: ASYNC110 time itself is the subject
            await asyncio.sleep(0.02)


async def test_without_redis_everybody_may_ask(client: httpx.AsyncClient, edge: Edge) -> None:
    """An allowance protects; it must not be what takes the panel down."""
    nowhere: Redis = Redis.from_url("redis://127.0.0.1:1")
    edge.store._redis = nowhere
    edge.store._spend = nowhere.register_script("return 1")

    body = await asked(client, "{ hello }")

    assert body["data"] == {"hello": "hello world"}


async def test_a_slow_operation_is_stopped_with_all_of_its_resolvers(edge: Edge) -> None:
    """504, a code, and nothing keeps running behind the answer."""
    edge.limits = replace(Limits(), seconds=0.1)
    async with client_of(edge) as client:
        answer = await client.post("/graphql", json={"query": "{ hello slow }"})

    assert answer.status_code == 504
    assert answer.json()["errors"][0]["extensions"]["code"] == "TIMEOUT"
    await until(lambda: "slow cancelled" in edge.events.seen)


async def test_a_late_event_is_null_and_the_next_one_comes(edge: Edge) -> None:
    """One slow moment must not end what a page follows."""
    edge.limits = replace(Limits(), seconds=0.1)
    async with serve(edge.app) as address, connected(address) as peer:
        await peer.begin()
        late, next_, end = await peer.run("1", "subscription { tick: ticks { late } }")

    assert late["payload"]["data"] is None
    assert late["payload"]["errors"][0]["path"] == ["tick"]
    assert late["payload"]["errors"][0]["extensions"] == {"code": "TIMEOUT"}
    assert next_["payload"]["data"] == {"tick": {"late": 2}}
    assert end["type"] == "complete"


async def test_events_are_paid_for_like_answers(edge: Edge) -> None:
    """Whoever follows a great deal waits for the next event, and for everything else."""
    edge.store = EdgeStore(edge.store._redis, capacity=30, rate=1)
    async with serve(edge.app) as address, connected(address) as peer:
        await peer.begin()
        await peer.say(subscribe("1", "subscription { count(to: 1000) }"))
        for _ in range(30):
            await peer.hear()
        await peer.say(subscribe("2", "mutation { add(a: 1, b: 2) }"))
        while (refused := await peer.hear())["id"] != "2":
            pass

    assert refused["payload"][0]["extensions"]["code"] == "RATE_LIMITED"
