"""Query cost: its analysis, the rate limit by it, refunds and timeouts."""

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from gateway.auth.caller import Caller
from gateway.graphql.admission.admission import MIN_PREPARATION_COST
from gateway.graphql.admission.best_effort_redis import BestEffortRedis
from gateway.graphql.admission.documents import DocumentCache
from gateway.graphql.admission.limits import Limits
from gateway.graphql.admission.rate_limiter import CostLimiter
from tests.support.gateway_server import CORE, SmallGateway, http_client, serve
from tests.support.wait import wait_until
from tests.support.websocket_client import connect, subscribe

NEVER: Any = 0.001  # points a second: nothing comes back while a test runs


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
        ("mutation { ...M } fragment M on Mutation { a: add(a: 1, b: 2) b: add(a: 1, b: 2) }", {}, 21),
        ('{ __type(name: "Leaf") { fields { name } } }', {}, 1 + 1 + 3),
        ('{ __type(name: "Leaf") { a: fields { name } b: fields { name } } }', {}, 1 + 1 + 6),
        ("query ($t: String!) { __type(name: $t) { fields { name } } }", {}, 1 + 1 + 11),
        ("{ __typename hello }", {}, 1),
        ("subscription { count }", {}, 1),
    ],
)  # fmt: skip
async def test_cost_counts_objects_times_page_sizes(
    document: str, variables: dict[str, Any], cost: int
) -> None:
    """Before execution, with fragments expanded and variables filled in."""
    operation = (
        await DocumentCache(CORE, Limits()).prepare(document, suggestions=False)
    ).operation(None)

    assert cost == operation.cost.evaluate(variables, page_size=100).objects


async def post(client: httpx.AsyncClient, query: str, **variables: Any) -> dict[str, Any]:
    """Send *query* and return the response body."""
    response = await client.post("/graphql", json={"query": query, "variables": variables})
    body: dict[str, Any] = response.json()
    return body


async def test_response_reports_its_cost(client: httpx.AsyncClient) -> None:
    """In the format of Shopify's API, which tools support."""
    cost = (await post(client, "{ leaves(first: 50) { nodes { id } } }"))["extensions"]["cost"]

    assert cost["requestedQueryCost"] == 52
    assert cost["actualQueryCost"] == 5
    available = cost["throttleStatus"].pop("currentlyAvailable")
    assert cost["throttleStatus"] == {"maximumAvailable": 20_000, "restoreRate": 1_000}
    assert 19_948 <= available <= 20_000


@pytest.mark.usefixtures("both_executors")
async def test_unused_cost_is_refunded(small_gateway: SmallGateway) -> None:
    """A page of a hundred of which three exist costs three."""
    small_gateway.capacity, small_gateway.rate = 1_000, NEVER
    async with http_client(small_gateway) as client:
        for _ in range(2):  # the first time, the document is paid for
            await post(client, "{ leaves(first: 100) { nodes { id } } }")
        cost = (await post(client, "{ leaves(first: 100) { nodes { id } } }"))["extensions"]["cost"]

    spent = MIN_PREPARATION_COST + 5 + cost["requestedQueryCost"]
    assert 1_000 - spent <= cost["throttleStatus"]["currentlyAvailable"] <= 1_000 - spent + 5


@pytest.mark.parametrize(
    ("query", "variables"),
    [
        ("{ leaves(first: 101) { nodes { id } } }", {}),
        ("query ($n: Int) { leaves(first: $n) { nodes { id } } }", {"n": 101}),
        ("{ leaves(first: 100) { nodes { " + "again { " * 10 + "id" + " }" * 10 + " } } leaf { id }"
         + " ".join(f"l{n}: leaves(first: 100) {{ nodes {{ again {{ id }} }} }}" for n in range(25)) + "}", {}),
    ],
)  # fmt: skip
async def test_too_expensive_operation_is_rejected(
    client: httpx.AsyncClient, small_gateway: SmallGateway, query: str, variables: dict[str, Any]
) -> None:
    """A page that is too long, or too many pages; nothing is charged."""
    body = await post(client, query, **variables)

    assert body["errors"][0]["extensions"]["code"] == "QUERY_TOO_COMPLEX"
    assert "data" not in body
    assert small_gateway.recorder.contexts == []


async def test_empty_bucket_is_a_429_with_retry_after(small_gateway: SmallGateway) -> None:
    """Other callers are not affected."""
    small_gateway.capacity, small_gateway.rate = MIN_PREPARATION_COST + 15, 10
    query = {"query": "mutation { add(a: 1, b: 2) }"}
    async with http_client(small_gateway) as client:
        statuses = [(await client.post("/graphql", json=query)).status_code for _ in range(2)]
        refused = await client.post("/graphql", json=query)
        other = await client.post("/graphql", json=query, headers={"Authorization": "Bearer bob"})

    assert [*statuses, refused.status_code, other.status_code] == [200, 200, 429, 200]
    assert refused.json()["errors"][0]["extensions"]["code"] == "RATE_LIMITED"
    assert 1 <= int(refused.headers["retry-after"]) <= 2


async def test_bucket_is_shared_by_processes_and_transports(small_gateway: SmallGateway) -> None:
    """A socket, or another process, gives a caller no second bucket."""
    small_gateway.capacity, small_gateway.rate = MIN_PREPARATION_COST + 15, 1
    async with http_client(small_gateway) as client:
        for _ in range(2):
            await post(client, "mutation { add(a: 1, b: 2) }")
    async with serve(small_gateway.app) as address, connect(address) as ws_client:
        await ws_client.init()
        [error] = await ws_client.execute("1", "mutation { add(a: 1, b: 2) }")

    assert error["payload"][0]["extensions"]["code"] == "RATE_LIMITED"


def caller(name: str, group: str = "") -> Caller:
    """A caller with these allowances."""
    return Caller(name, object, group=group)


async def test_bucket_refills_with_time(redis: Redis) -> None:
    """At its rate, up to its capacity, by Redis's clock."""
    limiter, ann = CostLimiter(BestEffortRedis(redis), capacity=10, rate=20), caller("ann")

    emptied = await limiter.charge(ann, 10)
    refused = await limiter.charge(ann, 10)
    assert (emptied.available, emptied.retry_after, refused.retry_after) == (0, 0, 1)

    async with asyncio.timeout(5):
        while (await limiter.charge(ann, 10)).retry_after:  # noqa: ASYNC110 time itself is the subject
            await asyncio.sleep(0.02)


async def test_group_shares_a_larger_bucket(redis: Redis) -> None:
    """Many people, or tokens, of one customer get three allowances together; other customers keep theirs."""
    limiter = CostLimiter(BestEffortRedis(redis), capacity=10, rate=1)

    spent = [await limiter.charge(caller(f"p{n}", "flood"), 10) for n in range(20)]
    other = await limiter.charge(caller("p20", "calm"), 10)

    assert not any(status.retry_after for status in spent[:3])
    assert all(status.retry_after for status in spent[3:])
    assert (other.retry_after, other.available) == (0, 0)


async def test_refused_charge_takes_nothing_from_either_bucket(redis: Redis) -> None:
    """A person without allowance must not use up that of the colleagues."""
    limiter = CostLimiter(BestEffortRedis(redis), capacity=10, rate=1)
    for _ in range(20):
        await limiter.charge(caller("ann", "team"), 10)

    assert (await limiter.charge(caller("bob", "team"), 10)).retry_after == 0


async def test_debt_is_one_for_every_process(redis: Redis) -> None:
    """Work that was done is charged whatever is available, at once, and where all processes see it."""
    one, other = [CostLimiter(BestEffortRedis(redis), capacity=10, rate=1) for _ in range(2)]

    one.settle(caller("ann"), 25)
    await one.charge(caller("bob"), 1)  # in the same command, or a later one
    in_debt = await other.charge(caller("ann"), 1)
    one.settle(caller("ann"), -25)
    await one.charge(caller("bob"), 1)

    assert in_debt.retry_after == 16
    assert (await other.charge(caller("ann"), 1)).retry_after == 0


async def test_without_redis_nobody_is_limited(small_gateway: SmallGateway) -> None:
    """The rate limit protects; its failure must not take the panel down."""
    small_gateway.redis = BestEffortRedis.from_url("redis://127.0.0.1:1")

    async with http_client(small_gateway) as client:
        body = await post(client, "{ hello }")

    assert body["data"] == {"hello": "hello world"}


@pytest.mark.usefixtures("both_executors")
async def test_slow_operation_times_out_with_its_resolvers(small_gateway: SmallGateway) -> None:
    """504, a code, and no resolver keeps running."""
    small_gateway.limits = replace(Limits(), timeout_seconds=0.1)
    async with http_client(small_gateway) as client:
        response = await client.post("/graphql", json={"query": "{ hello slow }"})

    assert response.status_code == 504
    assert response.json()["errors"][0]["extensions"]["code"] == "TIMEOUT"
    await wait_until(lambda: "slow cancelled" in small_gateway.recorder.entries)


@pytest.mark.usefixtures("both_executors")
async def test_slow_event_times_out_and_subscription_goes_on(small_gateway: SmallGateway) -> None:
    """One slow moment must not end what a page follows."""
    small_gateway.limits = replace(Limits(), timeout_seconds=0.1)
    async with serve(small_gateway.app) as address, connect(address) as ws_client:
        await ws_client.init()
        late, next_, end = await ws_client.execute("1", "subscription { tick: ticks { late } }")

    assert late["payload"]["data"] is None
    assert late["payload"]["errors"][0]["path"] == ["tick"]
    assert late["payload"]["errors"][0]["extensions"] == {"code": "TIMEOUT"}
    assert next_["payload"]["data"] == {"tick": {"late": 2}}
    assert end["type"] == "complete"


async def test_subscription_events_are_charged(small_gateway: SmallGateway) -> None:
    """A caller that follows a great deal waits for the next event, and for everything else."""
    small_gateway.capacity, small_gateway.rate = MIN_PREPARATION_COST + 30, 1
    async with serve(small_gateway.app) as address, connect(address) as ws_client:
        await ws_client.init()
        await ws_client.send(subscribe("1", "subscription { count(to: 1000) }"))
        for _ in range(30):
            await ws_client.receive()
        await ws_client.send(subscribe("2", "mutation { add(a: 1, b: 2) }"))
        while (refused := await ws_client.receive())["id"] != "2":
            pass

    assert refused["payload"][0]["extensions"]["code"] == "RATE_LIMITED"
