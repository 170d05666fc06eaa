"""The door to Stripe: one request per call, raw JSON out, every failure named for what may follow."""

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
from billing.budget.call import Call
from billing.budget.policy import Allowance, BudgetPolicy
from billing.errors import BillingError, KeyExpired, OutcomeUnknown, StripeBusy, StripeRejected
from billing.invoicing.snapshot import Op, OpKind
from billing.money import plain
from billing.services import Services
from billing.stripe import API_VERSION, StripeApi, tally
from tests.support.stripe_sandbox import StripeSandbox

POLICY = BudgetPolicy(
    account=Allowance(1000, 100),
    endpoint=Allowance(1000, 100),
    lists=8,
    reads=100_000,
    max_wait=5,
)
KEY = "sk_test_0123456789abcdef"


@dataclass
class Counter:
    """A Stripe of a few lines: answers from a queue, remembers what it was asked."""

    url: str = ""
    answers: deque[Response] = field(default_factory=deque)
    asked: list[tuple[Request, Mapping[str, list[str]]]] = field(default_factory=list)

    async def answer(self, request: Request) -> Response:
        """Remember *request*, give the next answer."""
        self.asked.append((request, parse_qs((await request.body()).decode())))
        return self.answers.popleft() if self.answers else JSONResponse({"id": "in_1"})


@pytest.fixture
async def counter() -> AsyncIterator[Counter]:
    """A loopback HTTP server that stands where Stripe is."""
    counter = Counter()
    route = Route("/{path:path}", counter.answer, methods=["GET", "POST", "DELETE"])
    config = uvicorn.Config(Starlette(routes=[route]), port=0, log_level="error")
    server = uvicorn.Server(config)
    sock = config.bind_socket()
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    counter.url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    yield counter
    server.should_exit = True
    await serving
    sock.close()


@pytest.fixture
def budget(redis: Redis) -> Budget:
    """An allowance that never stands in the way."""
    return Budget(redis, POLICY)


@pytest.fixture
async def api(counter: Counter, budget: Budget) -> AsyncIterator[StripeApi]:
    """The door, in front of the loopback server."""
    async with aclosing(StripeApi(KEY, counter.url, budget)) as door:
        yield door


def add_lines(**params: Any) -> Op:
    """An op of a flush."""
    return Op(
        OpKind.ADD_LINES,
        "POST",
        "/v1/invoices/in_1/add_lines",
        params,
        key="gw1:cus_1:2025-12:0:1:0",
    )


def refusal(status: int, code: str | None = None, **headers: str) -> Response:
    """Stripe's error body with this status."""
    error = {"type": "invalid_request_error", "code": code, "message": "No."}
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return JSONResponse({"error": error}, status_code=status, headers=named)


async def test_a_write_goes_out_once_under_its_key_and_the_pinned_version(
    api: StripeApi,
    counter: Counter,
) -> None:
    """The same body under the same key is what makes a resend harmless."""
    lines = [{"quantity_decimal": plain(Decimal("1E-7")), "discountable": False}]
    counter.answers.append(JSONResponse({"id": "in_1"}, headers={"request-id": "req_1"}))

    answer = await api.send(add_lines(lines=lines), lane=Lane.INTERVAL)

    ((request, form),) = counter.asked
    assert answer.body == {"id": "in_1"}
    assert (answer.request_id, answer.replayed) == ("req_1", False)
    assert (request.method, request.url.path) == ("POST", "/v1/invoices/in_1/add_lines")
    assert request.headers["idempotency-key"] == "gw1:cus_1:2025-12:0:1:0"
    assert request.headers["stripe-version"] == API_VERSION
    assert "x-stripe-client-telemetry" not in request.headers
    assert form == {
        "lines[0][quantity_decimal]": ["0.0000001"],
        "lines[0][discountable]": ["false"],
    }


async def test_an_answer_leaves_nothing_for_the_collector(api: StripeApi) -> None:
    """What only a collection can free adds up to a pause that a panel waits for."""
    gc.collect()
    gc.disable()
    try:
        await api.read("/v1/customers/cus_1", lane=Lane.CUSTOMER)
        left = [each for each in gc.get_objects() if type(each) is httpx.Response]
    finally:
        gc.enable()

    assert not left


async def test_a_delete_carries_no_key(api: StripeApi, counter: Counter) -> None:
    """Stripe ignores keys on DELETE; sending one would promise what does not hold."""
    op = Op(OpKind.DELETE, "DELETE", "/v1/invoices/in_1", {}, key="gw1:k")

    await api.send(op, lane=Lane.CLOSE)

    assert "idempotency-key" not in counter.asked[0][0].headers


async def test_an_answer_says_that_it_is_a_replay(api: StripeApi, counter: Counter) -> None:
    """A replay on an op's first attempt proves a rewound ledger."""
    counter.answers.append(JSONResponse({"id": "in_1"}, headers={"Idempotent-Replayed": "true"}))

    assert (await api.send(add_lines(), lane=Lane.CUSTOMER)).replayed


@pytest.mark.parametrize(
    ("answer", "kind", "told"),
    [
        (
            refusal(429, "rate_limit", stripe_rate_limited_reason="endpoint-rate"),
            StripeBusy,
            {"reason": "endpoint-rate"},
        ),
        (refusal(429, "lock_timeout"), StripeBusy, {"reason": None}),
        (refusal(409, "idempotency_key_in_use"), StripeBusy, {"reason": None}),
        (refusal(500), OutcomeUnknown, {}),
        (Response("<html>bad gateway</html>", status_code=502), OutcomeUnknown, {}),
        (Response("half an ans", status_code=200), OutcomeUnknown, {}),
        (JSONResponse([], status_code=200), OutcomeUnknown, {}),
        (
            refusal(400, "invoice_not_editable", request_id="req_2"),
            StripeRejected,
            {"status": 400, "stripe_code": "invoice_not_editable", "request_id": "req_2"},
        ),
        (refusal(404, "resource_missing"), StripeRejected, {"status": 404, "replayed": False}),
        (refusal(401), StripeRejected, {"status": 401, "stripe_code": "invalid_request_error"}),
        (
            refusal(500, idempotent_replayed="true"),
            StripeRejected,
            {"status": 500, "replayed": True},
        ),
        (
            refusal(429, "lock_timeout", idempotent_replayed="true"),
            StripeRejected,
            {"stripe_code": "lock_timeout", "replayed": True},
        ),
    ],
)
async def test_a_failure_is_named_for_what_may_follow(
    api: StripeApi,
    counter: Counter,
    answer: Response,
    kind: type[BillingError],
    told: dict[str, Any],
) -> None:
    """Same key again, or plan anew: the wrong choice loses or doubles a line."""
    counter.answers.append(answer)

    with pytest.raises(kind) as raised:
        await api.send(add_lines(), lane=Lane.CUSTOMER)

    assert {name: getattr(raised.value, name) for name in told} == told
    assert len(counter.asked) == 1


@pytest.mark.parametrize(
    ("answer", "learnt"),
    [
        (JSONResponse({"id": "in_1"}), CallOutcome.OK),
        (refusal(404, "resource_missing"), CallOutcome.OK),
        (
            refusal(429, "rate_limit", stripe_rate_limited_reason="endpoint-concurrency"),
            CallOutcome.LIMITED,
        ),
        (
            refusal(429, "rate_limit", stripe_rate_limited_reason="global-rate"),
            CallOutcome.LIMITED_GLOBALLY,
        ),
        (
            refusal(429, "rate_limit", stripe_rate_limited_reason="resource-specific"),
            CallOutcome.LOCKED,
        ),
        (refusal(429, "lock_timeout"), CallOutcome.LOCKED),
        (refusal(409, "idempotency_key_in_use"), CallOutcome.LOCKED),
        (refusal(503), CallOutcome.FAILED),
    ],
)
async def test_the_budget_learns_whose_limit_was_met(
    api: StripeApi, counter: Counter, answer: Response, learnt: CallOutcome
) -> None:
    """A locked invoice slows nobody else, a limiter its endpoint or all; a 5xx counts for the breaker."""
    endpoint = "POST /v1/invoices/{invoice}/add_lines"
    labels = {"endpoint": endpoint, "lane": "customer", "outcome": learnt}
    before = REGISTRY.get_sample_value("billing_stripe_calls_total", labels) or 0
    counter.answers.append(answer)

    with suppress(BillingError):
        await api.send(add_lines(), lane=Lane.CUSTOMER)

    assert REGISTRY.get_sample_value("billing_stripe_calls_total", labels) == before + 1


async def test_a_read_is_tried_again_while_stripe_is_busy(api: StripeApi, counter: Counter) -> None:
    """A panel shows what it asked for although Stripe's limiter said no for a moment."""
    counter.answers += [
        refusal(429, "rate_limit", stripe_rate_limited_reason="global-rate"),
        refusal(429, "lock_timeout"),
        JSONResponse({"id": "cus_1"}),
    ]

    assert await api.read("/v1/customers/cus_1", lane=Lane.CUSTOMER) == {"id": "cus_1"}


async def test_a_write_without_a_ledger_is_tried_again_under_its_key(
    api: StripeApi,
    counter: Counter,
) -> None:
    """The key makes it one portal session, the three tries make it one that comes."""
    counter.answers += [refusal(409, "idempotency_key_in_use") for _ in range(3)]

    with pytest.raises(StripeBusy):
        await api.write("/v1/billing_portal/sessions", {}, key="portal-1", lane=Lane.CUSTOMER)

    assert [request.headers["idempotency-key"] for request, _ in counter.asked] == ["portal-1"] * 3


async def test_a_refused_connection_sent_nothing(budget: Budget) -> None:
    """Nothing left this machine, so nothing is in doubt and no finalization has to wait."""
    async with aclosing(StripeApi(KEY, "http://127.0.0.1:9", budget)) as door:
        with pytest.raises(StripeBusy):
            await door.send(add_lines(), lane=Lane.CUSTOMER)


@asynccontextmanager
async def broken(reply: bytes | None) -> AsyncIterator[str]:
    """A server that reads a request, sends *reply* and hangs up; with None it never answers."""
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
async def test_a_lost_answer_leaves_the_outcome_unknown(
    budget: Budget, reply: bytes | None
) -> None:
    """Stripe may have done it: the same key must be sent again, never a new one."""
    impatient = httpx.Timeout(0.2)
    async with (
        broken(reply) as url,
        aclosing(StripeApi(KEY, url, budget, timeout=impatient)) as door,
    ):
        with pytest.raises(OutcomeUnknown):
            await door.send(add_lines(), lane=Lane.CUSTOMER)


async def test_an_old_key_is_not_sent(budget: Budget, counter: Counter) -> None:
    """A worker frozen for a day must not resend: Stripe may have pruned the key, and would do it twice."""
    clock = iter([100.0, 101.0])
    door = StripeApi(KEY, counter.url, budget, now=lambda: next(clock))
    async with aclosing(door):
        await door.send(add_lines(), lane=Lane.CUSTOMER, not_after=100.5)
        with pytest.raises(KeyExpired):
            await door.send(add_lines(), lane=Lane.CUSTOMER, not_after=100.5)

    assert len(counter.asked) == 1


async def test_a_list_is_read_to_its_end(api: StripeApi, counter: Counter) -> None:
    """A customer with 120 invoices has 120, in pages of 100."""
    counter.answers += [
        JSONResponse({"data": [{"id": "in_1"}, {"id": "in_2"}], "has_more": True}),
        JSONResponse({"data": [{"id": "in_3"}], "has_more": False}),
    ]

    found = await api.pages("/v1/invoices", {"customer": "cus_1"}, lane=Lane.SUPPORT)

    assert [each["id"] for each in found] == ["in_1", "in_2", "in_3"]
    assert [dict(request.query_params) for request, _ in counter.asked] == [
        {"customer": "cus_1", "limit": "100"},
        {"customer": "cus_1", "limit": "100", "starting_after": "in_2"},
    ]


async def test_a_list_stops_at_its_limit(api: StripeApi, counter: Counter) -> None:
    """Reads are rationed: what nobody asked for is not fetched."""
    page = {"data": [{"id": "in_1"}, {"id": "in_2"}], "has_more": True}
    counter.answers.append(JSONResponse(page))

    found = await api.pages("/v1/invoices", lane=Lane.CUSTOMER, limit=2)

    assert len(found) == 2
    assert [dict(request.query_params) for request, _ in counter.asked] == [{"limit": "2"}]


async def test_calls_are_tallied_where_they_were_caused(api: StripeApi) -> None:
    """An answer says how many Stripe calls it took, its own and nobody else's."""
    with tally() as outer:
        await api.read("/v1/customers/cus_1", lane=Lane.CUSTOMER)
        with tally() as inner:
            reads = [api.read(f"/v1/invoices/in_{n}", lane=Lane.CUSTOMER) for n in range(3)]
            await asyncio.gather(*reads)
    await api.read("/v1/customers/cus_1", lane=Lane.CUSTOMER)

    assert (inner.calls, outer.calls) == (3, 4)


async def test_what_was_never_sent_is_not_tallied(budget: Budget) -> None:
    """The tally counts requests, not wishes."""
    async with aclosing(StripeApi(KEY, "http://127.0.0.1:9", budget)) as door:
        with tally() as counted, pytest.raises(StripeBusy):
            await door.read("/v1/customers/cus_1", lane=Lane.CUSTOMER)

    assert counted.calls == 0


def test_another_api_version_is_refused_at_start(
    budget: Budget,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An SDK upgrade changes Stripe's answers; it must be noticed before the first of them."""
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
def test_calls_of_one_endpoint_share_a_name(
    method: str,
    path: str,
    endpoint: str,
    locked: str | None,
    lists: bool,
) -> None:
    """Stripe counts by method and path template; the ids in between must not split the allowance."""
    call = Call.of(method, path, {"customer": "cus_1"})

    assert (call.endpoint, call.object, call.lists) == (endpoint, locked, lists)


CUSTOMERS = "POST /v1/customers"


def a_customer(key: str) -> Op:
    """An op that creates something, so that doing it twice shows."""
    return Op(OpKind.CREATE, "POST", "/v1/customers", {"name": "Ada"}, key=key)


async def test_a_lost_answer_is_had_again_under_the_same_key(
    services: Services,
    sandbox: StripeSandbox,
) -> None:
    """The write was done; sent again, it is answered and not done twice."""
    await sandbox.fault("answer_lost_after", CUSTOMERS)
    with pytest.raises(OutcomeUnknown):
        await services.stripe.send(a_customer("k1"), lane=Lane.CUSTOMER)

    answer = await services.stripe.send(a_customer("k1"), lane=Lane.CUSTOMER)

    everybody = await services.stripe.pages("/v1/customers", lane=Lane.CUSTOMER)
    assert answer.replayed
    assert [each["id"] for each in everybody] == [answer.body["id"]]


async def test_a_stored_failure_is_for_good_under_its_key(
    services: Services,
    sandbox: StripeSandbox,
) -> None:
    """Stripe repeats a stored 500 for as long as the key lives: the second answer is a rejection."""
    await sandbox.fault("error_500_after", CUSTOMERS)
    with pytest.raises(OutcomeUnknown):
        await services.stripe.send(a_customer("k2"), lane=Lane.CUSTOMER)

    with pytest.raises(StripeRejected) as raised:
        await services.stripe.send(a_customer("k2"), lane=Lane.CUSTOMER)

    assert (raised.value.status, raised.value.replayed) == (500, True)


async def test_a_limiters_refusal_reaches_the_budget(
    services: Services,
    sandbox: StripeSandbox,
) -> None:
    """What Stripe's limiter says to one call slows all of them, and only on that endpoint."""
    await sandbox.fault("rate_limited", CUSTOMERS, reason="endpoint-rate")
    with pytest.raises(StripeBusy):
        await services.stripe.send(a_customer("k3"), lane=Lane.CUSTOMER)
    await services.stripe.pages("/v1/invoices", lane=Lane.CUSTOMER)

    throttled = {
        each.endpoint: each.throttled for each in (await services.budget.state()).endpoints
    }
    assert throttled == {CUSTOMERS: 1, "GET /v1/invoices": 0}


async def test_keys_of_different_bodies_are_refused(services: Services) -> None:
    """The key is a compare-and-set: a zombie's other body must not slip in under it."""
    await services.stripe.send(a_customer("k4"), lane=Lane.CUSTOMER)
    other = Op(OpKind.CREATE, "POST", "/v1/customers", {"name": "Eve"}, key="k4")

    with pytest.raises(StripeRejected) as raised:
        await services.stripe.send(other, lane=Lane.CUSTOMER)

    assert raised.value.stripe_code == "idempotency_error"
