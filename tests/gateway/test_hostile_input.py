"""Hostile input is rejected quickly and delays no other request."""

import asyncio
import gc
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count

import httpx
import jwt
import pytest
from graphql import GraphQLError, get_introspection_query, parse, specified_rules
from redis.asyncio import Redis
from strawberry.schema import schema as strawberry_schema

from billing.budget import Lane
from billing.services import Services
from billing.settings import Environment, Settings
from gateway.app import create_app
from gateway.graphql.admission.best_effort_redis import BestEffortRedis
from gateway.graphql.admission.documents import (
    VALIDATION_RULES,
    DocumentCache,
    InvalidDocument,
)
from gateway.graphql.admission.limits import Limits
from tests.support.gateway_server import CORE, SmallGateway, http_client, serve
from tests.support.hostile_corpus import billing_documents, bodies, documents
from tests.support.websocket_client import WebSocketClient, connect, subscribe

MAX_BLOCKED_SECONDS = 0.050
# A busy machine delays any request now and then; a hostile one blocks each time.
ATTEMPTS = 4
MAX_CALLS = 200_000


class LoopMonitor:
    """The longest time that the event loop's thread worked without a break, in seconds of its own CPU."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def watch(self) -> None:
        """Measure each iteration of the event loop."""
        while True:
            before = time.thread_time()
            await asyncio.sleep(0)
            self.longest = max(self.longest, time.thread_time() - before)


@pytest.fixture(autouse=True)
def frozen_heap() -> Iterator[None]:
    """Freeze the heap, as the gateway does at startup: a full collection of all that pytest holds takes 100 ms."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@asynccontextmanager
async def monitor_loop() -> AsyncIterator[LoopMonitor]:
    """Monitor the event loop while the block runs."""
    monitor = LoopMonitor()
    watcher = asyncio.create_task(monitor.watch())
    try:
        yield monitor
    finally:
        watcher.cancel()


@pytest.fixture
def small_gateway(redis: Redis) -> SmallGateway:
    """An endpoint that looks at every document: an empty bucket would refuse most of them."""
    return SmallGateway(BestEffortRedis(redis), capacity=10**9)


@pytest.mark.parametrize("introspects", [True, False])
async def test_hostile_body_neither_blocks_the_loop_nor_breaks_the_server(
    small_gateway: SmallGateway, *, introspects: bool
) -> None:
    """Other requests of the process wait less than 50 ms, and there is no internal error."""
    small_gateway.caller = lambda caller: replace(caller, may_introspect=introspects)
    async with http_client(small_gateway) as client:
        blocked, broken = await attack(client, bodies(), dict)

    assert blocked == {}
    assert broken == {}


ROLES = ("customer", "support", "metering", None)


@pytest.mark.parametrize("environment", Environment)
@pytest.mark.parametrize("role", ROLES)
async def test_hostile_body_is_harmless_for_every_role_and_environment(
    settings: Settings, services: Services, environment: Environment, role: str | None
) -> None:
    """Suggestions, introspection and the panel differ between them; so may a protection."""
    made = await services.stripe.write("/v1/customers", {}, key="cus", lane=Lane.CUSTOMER)
    customer, people = str(made.body["id"]), count()
    own = (
        (name, json.dumps({"query": text}).encode()) for name, text in billing_documents(customer)
    )

    def headers() -> dict[str, str]:
        return bearer(settings, role, customer, f"person-{next(people)}") if role else {}

    app = create_app(settings.model_copy(update={"environment": environment}))
    async with (
        serve(app) as address,
        httpx.AsyncClient(base_url=f"http://{address}") as client,
    ):
        blocked, broken = await attack(client, (*bodies(), *own), headers)

    assert blocked == {}
    assert broken == {}


async def attack(
    client: httpx.AsyncClient,
    hostile: Iterable[tuple[str, bytes]],
    headers: Callable[[], dict[str, str]],
) -> tuple[dict[str, float], dict[str, str]]:
    """Send *hostile* bodies; return the times for which they blocked the event loop, and internal errors."""
    blocked, broken = {}, {}
    for name, body in hostile:
        for _ in range(ATTEMPTS):
            async with monitor_loop() as monitor:
                response = await client.post(
                    "/graphql",
                    content=body,
                    headers={"Content-Type": "application/json", **headers()},
                )
            if monitor.longest < MAX_BLOCKED_SECONDS:
                break
        else:
            blocked[name] = monitor.longest
        if response.status_code >= 500 or "INTERNAL_SERVER_ERROR" in response.text:
            broken[name] = response.text
    return blocked, broken


def bearer(settings: Settings, role: str, customer: str, person: str) -> dict[str, str]:
    """Return the header of a token; each person of a customer has other colleagues, and so an allowance."""
    assert settings.jwt_secret
    claims = {"sub": person, "role": role, "customers": [customer, f"cus_{person}"]}
    token = jwt.encode(
        {**claims, "aud": "fly-billing", "exp": int(time.time()) + 60},
        settings.jwt_secret.get_secret_value(),
        "HS256",
    )
    return {"Authorization": f"Bearer {token}"}


async def test_hostile_document_takes_a_bounded_number_of_calls() -> None:
    """Counted, not timed: function calls between two iterations of the event loop, at 10 million a second."""
    steps = {name: _max_calls(document) for name, document in documents()}

    assert {name: calls for name, calls in steps.items() if calls > MAX_CALLS} == {}
    assert max(steps.values()) > MAX_CALLS / 10, "nothing was counted"


def _max_calls(document: str) -> int:
    """Return the most calls that preparing *document* makes between two iterations of the event loop."""
    calls = most = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    preparation = DocumentCache(CORE, Limits()).prepare(document, suggestions=True).__await__()
    sys.setprofile(count)
    try:
        for _ in preparation:
            most, calls = max(most, calls), 0
    except (InvalidDocument, GraphQLError):
        pass
    finally:
        sys.setprofile(None)
    return max(most, calls)


async def test_hostile_document_does_not_close_a_socket(address: str) -> None:
    """Each of the same documents is answered over WebSocket."""
    async with connect(address) as ws_client:
        await ws_client.init()
        for number, (_, document) in enumerate(documents()):
            await _execute(ws_client, str(number), document)
        [response, _] = await ws_client.execute("last", "{ hello }")

    assert response["payload"]["data"] == {"hello": "hello world"}


async def _execute(ws_client: WebSocketClient, id_: str, document: str) -> None:
    await ws_client.send(subscribe(id_, document))
    while (await ws_client.receive())["type"] == "next":
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
async def test_exceeded_limit_is_named(
    client: httpx.AsyncClient, limit: str, document: str
) -> None:
    """So that the author knows what to cut."""
    response = await client.post("/graphql", json={"query": document})

    error = response.json()["errors"][0]
    assert error["extensions"]["code"] == "QUERY_TOO_COMPLEX"
    assert f"({limit}: {getattr(Limits(), limit)})" in error["message"]


async def test_fragments_count_once_per_spread(client: httpx.AsyncClient) -> None:
    """Forty aliases in a fragment that is spread twice are eighty."""
    aliases = " ".join(f"a{n}: id" for n in range(40))
    document = f"{{ one: leaf {{ ...F }} two: leaf {{ ...F }} }} fragment F on Leaf {{ {aliases} }}"

    response = await client.post("/graphql", json={"query": document})

    assert "aliases" in response.json()["errors"][0]["message"]


async def test_full_introspection_is_within_the_limits() -> None:
    """GraphiQL, code generators and Relay's compiler send it."""
    query = get_introspection_query(
        descriptions=True,
        specified_by_url=True,
        directive_is_repeatable=True,
        schema_description=True,
        input_value_deprecation=True,
    )

    document = await DocumentCache(CORE, Limits()).prepare(query, suggestions=False)

    assert document.operation(None).introspects


async def test_valid_document_is_prepared_once() -> None:
    """Parsing and validation take two thirds of a query's time."""
    documents = DocumentCache(CORE, Limits(), capacity=2)

    first = await documents.prepare("{ hello }", suggestions=False)
    await documents.prepare("{ leaf { id } }", suggestions=False)

    assert await documents.prepare("{ hello }", suggestions=False) is first
    await documents.prepare("{ leaf { name } }", suggestions=False)
    assert await documents.prepare("{ hello }", suggestions=False) is first


def test_validation_rules_are_those_of_strawberry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strawberry adds rules to graphql-core's where its schema allows more than the SDL says."""
    applied: list[object] = []
    monkeypatch.setattr(strawberry_schema, "validate", lambda *args: applied.extend(args[2]) or [])

    strawberry_schema.validate_document(CORE, parse("{ hello }"), tuple(specified_rules))

    assert set(VALIDATION_RULES) == set(applied)
