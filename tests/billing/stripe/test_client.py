"""The Stripe client: one request a call, raw JSON, and an error for each kind of failure."""

import asyncio
import gc
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
import stripe
import uvicorn
from prometheus_client import REGISTRY
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from billing.budget import Budget, CallOutcome, Lane
from billing.budget.call import StripeCall
from billing.budget.policy import BudgetPolicy, RateLimit
from billing.errors import (
    BillingError,
    KeyExpired,
    KeyRefused,
    OutcomeUnknown,
    StripeBusy,
    StripeRejected,
)
from billing.invoicing.request_batch import RequestKind, StripeRequest
from billing.money import format_decimal
from billing.services import Services
from billing.stripe import API_VERSION, StripeApi, count_calls
from tests.support.stripe_sandbox import StripeSandbox

POLICY = BudgetPolicy(
    account=RateLimit(1000, 100),
    endpoint=RateLimit(1000, 100),
    list_slots=8,
    read_ration=100_000,
    max_wait=5,
)
KEY = "sk_test_0123456789abcdef"


@dataclass
class FakeStripe:
    """A Stripe that returns queued responses and records the requests."""

    url: str = ""
    responses: deque[Response] = field(default_factory=deque)
    requests: list[tuple[Request, Mapping[str, list[str]]]] = field(default_factory=list)

    async def respond(self, request: Request) -> Response:
        """Record *request*, return the next response."""
        self.requests.append((request, parse_qs((await request.body()).decode())))
        return self.responses.popleft() if self.responses else JSONResponse({"id": "in_1"})


@pytest.fixture
async def fake() -> AsyncIterator[FakeStripe]:
    """A loopback HTTP server in place of Stripe."""
    fake = FakeStripe()
    route = Route("/{path:path}", fake.respond, methods=["GET", "POST", "DELETE"])
    config = uvicorn.Config(Starlette(routes=[route]), port=0, log_level="error")
    server = uvicorn.Server(config)
    sock = config.bind_socket()
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    fake.url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    yield fake
    server.should_exit = True
    await serving
    sock.close()


@pytest.fixture
def budget(redis: Redis) -> Budget:
    """A budget that never limits."""
    return Budget(redis, POLICY)


@pytest.fixture
async def api(fake: FakeStripe, budget: Budget) -> AsyncIterator[StripeApi]:
    """A client of the loopback server."""
    async with aclosing(StripeApi(KEY, fake.url, budget)) as api:
        yield api


def add_lines(**params: Any) -> StripeRequest:
    """A write of a flush."""
    return StripeRequest(
        RequestKind.ADD_LINES,
        "POST",
        "/v1/invoices/in_1/add_lines",
        params,
        idempotency_key="gw1:cus_1:2025-12:0:1:0",
    )


def error_response(status: int, code: str | None = None, **headers: str) -> Response:
    """Stripe's error body with this status."""
    error = {"type": "invalid_request_error", "code": code, "message": "No."}
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return JSONResponse({"error": error}, status_code=status, headers=named)


async def test_write_is_sent_once_with_key_and_api_version(
    api: StripeApi,
    fake: FakeStripe,
) -> None:
    """An identical body under the same key makes a resend harmless."""
    lines = [{"quantity_decimal": format_decimal(Decimal("1E-7")), "discountable": False}]
    fake.responses.append(JSONResponse({"id": "in_1"}, headers={"request-id": "req_1"}))

    response = await api.send(add_lines(lines=lines), lane=Lane.INTERVAL)

    ((request, form),) = fake.requests
    assert response.body == {"id": "in_1"}
    assert (response.request_id, response.replayed) == ("req_1", False)
    assert (request.method, request.url.path) == ("POST", "/v1/invoices/in_1/add_lines")
    assert request.headers["idempotency-key"] == "gw1:cus_1:2025-12:0:1:0"
    assert request.headers["stripe-version"] == API_VERSION
    assert "x-stripe-client-telemetry" not in request.headers
    assert form == {
        "lines[0][quantity_decimal]": ["0.0000001"],
        "lines[0][discountable]": ["false"],
    }


async def test_response_creates_no_reference_cycle(api: StripeApi) -> None:
    """Cycles are freed by the collector alone, whose pauses delay panels."""
    gc.collect()
    gc.disable()
    try:
        await api.read("/v1/customers/cus_1", lane=Lane.CUSTOMER)
        left = [item for item in gc.get_objects() if type(item) is httpx.Response]
    finally:
        gc.enable()

    assert not left


async def test_delete_has_no_idempotency_key(api: StripeApi, fake: FakeStripe) -> None:
    """Stripe ignores keys on DELETE; sending one would promise a protection that does not exist."""
    request = StripeRequest(
        RequestKind.DELETE, "DELETE", "/v1/invoices/in_1", {}, idempotency_key="gw1:k"
    )

    await api.send(request, lane=Lane.CLOSE)

    assert "idempotency-key" not in fake.requests[0][0].headers


async def test_response_reports_replay(api: StripeApi, fake: FakeStripe) -> None:
    """A replay on a request's first attempt proves that the ledger was rewound."""
    fake.responses.append(JSONResponse({"id": "in_1"}, headers={"Idempotent-Replayed": "true"}))

    assert (await api.send(add_lines(), lane=Lane.CUSTOMER)).replayed


@pytest.mark.parametrize(
    ("response", "kind", "fields"),
    [
        (
            error_response(429, "rate_limit", stripe_rate_limited_reason="endpoint-rate"),
            StripeBusy,
            {"reason": "endpoint-rate"},
        ),
        (error_response(429, "lock_timeout"), StripeBusy, {"reason": None}),
        (error_response(409, "idempotency_key_in_use"), StripeBusy, {"reason": None}),
        (error_response(500), OutcomeUnknown, {}),
        (Response("<html>bad gateway</html>", status_code=502), OutcomeUnknown, {}),
        (Response("half an ans", status_code=200), OutcomeUnknown, {}),
        (JSONResponse([], status_code=200), OutcomeUnknown, {}),
        (
            error_response(400, "invoice_not_editable", request_id="req_2"),
            StripeRejected,
            {"status": 400, "stripe_code": "invoice_not_editable", "request_id": "req_2"},
        ),
        (
            error_response(404, "resource_missing"),
            StripeRejected,
            {"status": 404, "replayed": False},
        ),
        (
            error_response(401, idempotent_replayed="true"),
            KeyRefused,
            {"whole": True, "retry_after": 60},
        ),
        (error_response(403), KeyRefused, {"whole": False, "retry_after": 60}),
        (
            error_response(500, idempotent_replayed="true"),
            StripeRejected,
            {"status": 500, "replayed": True},
        ),
        (
            error_response(429, "lock_timeout", idempotent_replayed="true"),
            StripeRejected,
            {"stripe_code": "lock_timeout", "replayed": True},
        ),
    ],
)
async def test_failure_is_translated(
    api: StripeApi,
    fake: FakeStripe,
    response: Response,
    kind: type[BillingError],
    fields: dict[str, Any],
) -> None:
    """The error decides between the same key again and a new plan; the wrong choice loses or doubles a line."""
    fake.responses.append(response)

    with pytest.raises(kind) as raised:
        await api.send(add_lines(), lane=Lane.CUSTOMER)

    assert {name: getattr(raised.value, name) for name in fields} == fields
    assert len(fake.requests) == 1


@pytest.mark.parametrize("status", [500, 501, 502, 503])
async def test_only_of_a_write_it_is_said_that_it_may_have_been_done(
    api: StripeApi, fake: FakeStripe, status: int
) -> None:
    """Whoever reads their bill must not fear that they were charged."""
    fake.responses += [error_response(status), error_response(status)]

    with pytest.raises(OutcomeUnknown) as of_read:
        await api.read("/v1/charges/ch_1", lane=Lane.CUSTOMER)
    with pytest.raises(OutcomeUnknown) as of_write:
        await api.send(add_lines(), lane=Lane.CUSTOMER)

    assert "nothing was changed" in of_read.value.message
    assert "may have been done" in of_write.value.message


@pytest.mark.parametrize(
    ("response", "outcome"),
    [
        (JSONResponse({"id": "in_1"}), CallOutcome.OK),
        (error_response(404, "resource_missing"), CallOutcome.OK),
        (
            error_response(429, "rate_limit", stripe_rate_limited_reason="endpoint-concurrency"),
            CallOutcome.LIMITED,
        ),
        (
            error_response(429, "rate_limit", stripe_rate_limited_reason="global-rate"),
            CallOutcome.LIMITED_GLOBALLY,
        ),
        (
            error_response(429, "rate_limit", stripe_rate_limited_reason="resource-specific"),
            CallOutcome.LOCKED,
        ),
        (error_response(429, "lock_timeout"), CallOutcome.LOCKED),
        (error_response(409, "idempotency_key_in_use"), CallOutcome.LOCKED),
        (error_response(503), CallOutcome.FAILED),
    ],
)
async def test_budget_outcome_names_the_limit(
    api: StripeApi, fake: FakeStripe, response: Response, outcome: CallOutcome
) -> None:
    """A locked object slows no other call, a limiter its endpoint or all; a 5xx counts for the breaker."""
    endpoint = "POST /v1/invoices/{invoice}/add_lines"
    labels = {"endpoint": endpoint, "lane": "customer", "outcome": outcome}
    before = REGISTRY.get_sample_value("billing_stripe_calls_total", labels) or 0
    fake.responses.append(response)

    with suppress(BillingError):
        await api.send(add_lines(), lane=Lane.CUSTOMER)

    assert REGISTRY.get_sample_value("billing_stripe_calls_total", labels) == before + 1


async def test_read_is_retried_while_stripe_is_busy(api: StripeApi, fake: FakeStripe) -> None:
    """A panel is shown although Stripe's limiter refused for a moment."""
    fake.responses += [
        error_response(429, "rate_limit", stripe_rate_limited_reason="global-rate"),
        error_response(429, "lock_timeout"),
        JSONResponse({"id": "cus_1"}),
    ]

    assert await api.read("/v1/customers/cus_1", lane=Lane.CUSTOMER) == {"id": "cus_1"}


async def test_write_is_retried_with_the_same_key(
    api: StripeApi,
    fake: FakeStripe,
) -> None:
    """The key makes the three attempts one portal session."""
    fake.responses += [error_response(409, "idempotency_key_in_use") for _ in range(3)]

    with pytest.raises(StripeBusy):
        await api.write("/v1/billing_portal/sessions", {}, key="portal-1", lane=Lane.CUSTOMER)

    assert [request.headers["idempotency-key"] for request, _ in fake.requests] == ["portal-1"] * 3


@pytest.mark.parametrize(
    ("key", "base"),
    [
        (KEY, "http://127.0.0.1:9"),
        (KEY, "http://nowhere.invalid"),
        (KEY, "https://[::1]:70000"),
        (KEY, "ftp://127.0.0.1"),
        (f"{KEY}\n", None),
        (f"{KEY}\N{EN DASH}", None),
    ],
)
async def test_request_that_cannot_be_sent_is_busy_not_unknown(
    budget: Budget, fake: FakeStripe, key: str, base: str | None
) -> None:
    """Nothing was sent, so nothing is in doubt and no finalization has to wait."""
    async with aclosing(StripeApi(key, base or fake.url, budget)) as api:
        with pytest.raises(StripeBusy):
            await api.send(add_lines(), lane=Lane.CUSTOMER)


@asynccontextmanager
async def broken_server(reply: bytes | None) -> AsyncIterator[str]:
    """A server that reads a request, sends *reply* and closes the connection; with None it never responds."""
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if reply is None:
            await done.wait()
        else:
            writer.write(reply)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1")
    host, port = server.sockets[0].getsockname()
    try:
        yield f"http://{host}:{port}"
    finally:
        done.set()
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{", None])
async def test_lost_response_leaves_outcome_unknown(budget: Budget, reply: bytes | None) -> None:
    """Stripe may have executed it: the same key must be sent again, never a new one."""
    short_timeout = httpx.Timeout(0.2)
    async with (
        broken_server(reply) as url,
        aclosing(StripeApi(KEY, url, budget, timeout=short_timeout)) as api,
    ):
        with pytest.raises(OutcomeUnknown):
            await api.send(add_lines(), lane=Lane.CUSTOMER)


async def test_expired_key_is_not_sent(budget: Budget, fake: FakeStripe) -> None:
    """A worker frozen for a day must not resend: Stripe may have pruned the key and would execute it twice."""
    clock = iter([100.0, 101.0])
    api = StripeApi(KEY, fake.url, budget, now=lambda: next(clock))
    async with aclosing(api):
        await api.send(add_lines(), lane=Lane.CUSTOMER, not_after=100.5)
        with pytest.raises(KeyExpired):
            await api.send(add_lines(), lane=Lane.CUSTOMER, not_after=100.5)

    assert len(fake.requests) == 1


async def test_list_all_reads_every_page(api: StripeApi, fake: FakeStripe) -> None:
    """A customer with 120 invoices gets 120, in pages of 100."""
    fake.responses += [
        JSONResponse({"data": [{"id": "in_1"}, {"id": "in_2"}], "has_more": True}),
        JSONResponse({"data": [{"id": "in_3"}], "has_more": False}),
    ]

    found = await api.list_all("/v1/invoices", {"customer": "cus_1"}, lane=Lane.SUPPORT)

    assert [invoice["id"] for invoice in found] == ["in_1", "in_2", "in_3"]
    assert [dict(request.query_params) for request, _ in fake.requests] == [
        {"customer": "cus_1", "limit": "100"},
        {"customer": "cus_1", "limit": "100", "starting_after": "in_2"},
    ]


async def test_list_all_stops_at_limit(api: StripeApi, fake: FakeStripe) -> None:
    """Reads are rationed: nothing beyond the limit is fetched."""
    page = {"data": [{"id": "in_1"}, {"id": "in_2"}], "has_more": True}
    fake.responses.append(JSONResponse(page))

    found = await api.list_all("/v1/invoices", lane=Lane.CUSTOMER, limit=2)

    assert len(found) == 2
    assert [dict(request.query_params) for request, _ in fake.requests] == [{"limit": "2"}]


async def test_count_calls_counts_calls_made_inside(api: StripeApi) -> None:
    """A response reports the Stripe calls that it took itself, also in tasks and enclosing counts."""
    with count_calls() as outer:
        await api.read("/v1/customers/cus_1", lane=Lane.CUSTOMER)
        with count_calls() as inner:
            reads = [api.read(f"/v1/invoices/in_{n}", lane=Lane.CUSTOMER) for n in range(3)]
            await asyncio.gather(*reads)
    await api.read("/v1/customers/cus_1", lane=Lane.CUSTOMER)

    assert (inner.calls, outer.calls) == (3, 4)


async def test_count_calls_ignores_unsent_requests(budget: Budget) -> None:
    """A request that was not sent is not counted."""
    async with aclosing(StripeApi(KEY, "http://127.0.0.1:9", budget)) as api:
        with count_calls() as counted, pytest.raises(StripeBusy):
            await api.read("/v1/customers/cus_1", lane=Lane.CUSTOMER)

    assert counted.calls == 0


def test_other_sdk_api_version_is_refused_at_start(
    budget: Budget,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An SDK upgrade changes Stripe's responses; it must be noticed before the first of them."""
    monkeypatch.setattr(stripe, "api_version", "2099-01-01.other")

    with pytest.raises(RuntimeError, match="2099-01-01"):
        StripeApi(KEY, "http://127.0.0.1:9", budget)


@pytest.mark.parametrize(
    ("method", "path", "endpoint", "locked", "lists"),
    [
        ("POST", "/v1/invoices", "POST /v1/invoices", "cus_1", False),
        ("GET", "/v1/invoices", "GET /v1/invoices", None, True),
        ("GET", "/v1/invoices/in_1", "GET /v1/invoices/{invoice}", None, False),
        (
            "POST",
            "/v1/invoices/in_1/add_lines",
            "POST /v1/invoices/{invoice}/add_lines",
            "in_1",
            False,
        ),
        ("GET", "/v1/invoices/in_1/lines", "GET /v1/invoices/{invoice}/lines", None, True),
        (
            "POST",
            "/v1/invoices/in_1/lines/il_1",
            "POST /v1/invoices/{invoice}/lines/{line}",
            "in_1",
            False,
        ),
        ("POST", "/v1/invoices/create_preview", "POST /v1/invoices/create_preview", "cus_1", False),
        ("DELETE", "/v1/invoices/in_1", "DELETE /v1/invoices/{invoice}", "in_1", False),
        (
            "POST",
            "/v1/billing_portal/sessions",
            "POST /v1/billing_portal/sessions",
            "cus_1",
            False,
        ),
        (
            "POST",
            "/v1/test_helpers/test_clocks/clock_1/advance",
            "POST /v1/test_helpers/test_clocks/{test_clock}/advance",
            "clock_1",
            False,
        ),
    ],
)
def test_endpoint_name_is_path_template(
    method: str,
    path: str,
    endpoint: str,
    locked: str | None,
    lists: bool,
) -> None:
    """Stripe counts by method and path template, so ids must not split the budget."""
    call = StripeCall.from_request(method, path, {"customer": "cus_1"})

    assert (call.endpoint, call.locked_object, call.is_list) == (endpoint, locked, lists)


CUSTOMERS = "POST /v1/customers"


def create_customer(key: str) -> StripeRequest:
    """A write that creates an object, so that a second execution is visible."""
    return StripeRequest(
        RequestKind.CREATE, "POST", "/v1/customers", {"name": "Ada"}, idempotency_key=key
    )


async def test_lost_response_is_replayed_under_the_same_key(
    services: Services,
    sandbox: StripeSandbox,
) -> None:
    """The write was executed; sent again, it is answered and not executed twice."""
    await sandbox.fault("answer_lost_after", CUSTOMERS)
    with pytest.raises(OutcomeUnknown):
        await services.stripe.send(create_customer("k1"), lane=Lane.CUSTOMER)

    response = await services.stripe.send(create_customer("k1"), lane=Lane.CUSTOMER)

    customers = await services.stripe.list_all("/v1/customers", lane=Lane.CUSTOMER)
    assert response.replayed
    assert [customer["id"] for customer in customers] == [response.body["id"]]


async def test_stored_failure_is_final_under_its_key(
    services: Services,
    sandbox: StripeSandbox,
) -> None:
    """Stripe repeats a stored 500 for as long as the key lives: the second response is a rejection."""
    await sandbox.fault("error_500_after", CUSTOMERS)
    with pytest.raises(OutcomeUnknown):
        await services.stripe.send(create_customer("k2"), lane=Lane.CUSTOMER)

    with pytest.raises(StripeRejected) as raised:
        await services.stripe.send(create_customer("k2"), lane=Lane.CUSTOMER)

    assert (raised.value.status, raised.value.replayed) == (500, True)


async def test_rate_limit_reaches_the_budget(
    services: Services,
    sandbox: StripeSandbox,
) -> None:
    """A refusal by Stripe's limiter slows all calls to that endpoint, and only those."""
    await sandbox.fault("rate_limited", CUSTOMERS, reason="endpoint-rate")
    with pytest.raises(StripeBusy):
        await services.stripe.send(create_customer("k3"), lane=Lane.CUSTOMER)
    await services.stripe.list_all("/v1/invoices", lane=Lane.CUSTOMER)

    throttled = {
        endpoint.endpoint: endpoint.throttled
        for endpoint in (await services.budget.state()).endpoints
    }
    assert throttled == {CUSTOMERS: 1, "GET /v1/invoices": 0}


async def test_key_with_another_body_is_rejected(services: Services) -> None:
    """The key is a compare-and-set: another worker's different body must not be executed under it."""
    await services.stripe.send(create_customer("k4"), lane=Lane.CUSTOMER)
    other = StripeRequest(
        RequestKind.CREATE, "POST", "/v1/customers", {"name": "Eve"}, idempotency_key="k4"
    )

    with pytest.raises(StripeRejected) as raised:
        await services.stripe.send(other, lane=Lane.CUSTOMER)

    assert raised.value.stripe_code == "idempotency_error"
