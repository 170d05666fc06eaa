"""The limits bite as Stripe's do, and every call is counted."""

import asyncio
from collections import Counter

import httpx
import pytest

from sandbox.errors import StripeError
from sandbox.faults import Limiter, Settings
from tests.support.polling import until
from tests.support.stripe_sandbox import StripeSandbox

ADD = "POST /v1/invoices/{invoice}/add_lines"


async def burst(http: httpx.AsyncClient, paths: list[str]) -> list[httpx.Response]:
    """GET all paths at once."""
    return list(await asyncio.gather(*(http.get(path) for path in paths)))


def admitted(limiter: Limiter, endpoints: list[str]) -> Counter[str]:
    """Ask for each endpoint in turn; count what was admitted and which limits refused."""
    counted: Counter[str] = Counter()
    for endpoint in endpoints:
        try:
            limiter.admit(endpoint)
            counted["ok"] += 1
        except StripeError as error:
            counted[error.headers["stripe-rate-limited-reason"]] += 1
    return counted


def test_an_endpoint_takes_25_a_second_and_search_20() -> None:
    """All ids share the template's budget; a second refills it."""
    now = [100.0]
    limiter = Limiter(Settings(), 0, lambda: now[0])

    assert admitted(limiter, [ADD] * 40) == {"ok": 25, "endpoint-rate": 15}
    now[0] += 0.4
    assert admitted(limiter, [ADD] * 40) == {"ok": 10, "endpoint-rate": 30}
    now[0] += 60
    searches = ["GET /v1/customers/search"] * 40
    assert admitted(limiter, searches) == {"ok": 20, "endpoint-rate": 20}


@pytest.mark.parametrize(("mode", "most"), [("live", 100), ("sandbox", 25)])
def test_the_account_takes_100_a_second_and_25_in_sandbox_mode(mode: str, most: int) -> None:
    """Endpoints within their own limits still share the account's."""
    limiter = Limiter(Settings(mode=mode), 0, lambda: 100.0)
    calls = [f"GET /v1/{n % 8}" for n in range(160)]

    assert admitted(limiter, calls) == {"ok": most, "global-rate": 160 - most}


async def test_a_limited_call_says_which_limit_it_was(
    sandbox: StripeSandbox, http: httpx.AsyncClient
) -> None:
    """A 429 that names its limiter is one to slow down for."""
    await sandbox.settings(limits=True)

    async def limited() -> bool:
        answers = await burst(http, [f"/v1/customers/cus_{n}" for n in range(60)])
        reasons = {a.headers.get("stripe-rate-limited-reason") for a in answers}
        assert {answer.status_code for answer in answers} <= {404, 429}
        return "endpoint-rate" in reasons

    await until(limited, wanted=True)


async def test_too_many_lists_at_once_hit_the_concurrency_limit(
    sandbox: StripeSandbox, http: httpx.AsyncClient
) -> None:
    """Slow calls are limited by how many run, not only by how often they come."""
    await sandbox.settings(limits=True, latency=True, concurrent_lists=3)
    answers = await burst(http, ["/v1/invoices"] * 8)

    reasons = [answer.headers.get("stripe-rate-limited-reason") for answer in answers]
    assert reasons.count("endpoint-concurrency") == 5


async def test_one_writer_an_object_others_wait_and_give_up(
    sandbox: StripeSandbox, http: httpx.AsyncClient
) -> None:
    """A lock timeout has no limiter's header and no request id."""
    await sandbox.settings(lock_wait=0.1)
    customer = (await http.post("/v1/customers")).json()["id"]
    invoice = (await http.post("/v1/invoices", data={"customer": customer})).json()["id"]
    await sandbox.settings(latency=True)
    path, line = f"/v1/invoices/{invoice}/add_lines", {"lines[0][amount]": "1"}
    answers = await asyncio.gather(*(http.post(path, data=line) for _ in range(6)))

    timeouts = [answer for answer in answers if answer.status_code == 429]
    assert timeouts
    assert timeouts[0].json()["error"]["code"] == "lock_timeout"
    assert "stripe-rate-limited-reason" not in timeouts[0].headers
    assert "request-id" not in timeouts[0].headers
    total = (await http.get(f"/v1/invoices/{invoice}")).json()["total"]
    assert total == sum(answer.status_code == 200 for answer in answers)


async def test_every_call_is_counted_by_endpoint_and_outcome(
    sandbox: StripeSandbox, http: httpx.AsyncClient
) -> None:
    """A benchmark reads here what a design costs in calls."""
    customer = (await http.post("/v1/customers")).json()["id"]
    await http.get(f"/v1/customers/{customer}")
    await http.get("/v1/customers/cus_none")
    await sandbox.fault("rate_limited", "POST /v1/customers")
    await http.post("/v1/customers")
    counted = await sandbox.counters()

    assert (counted["total"], counted["reads"], counted["writes"]) == (4, 2, 2)
    read = counted["endpoints"]["GET /v1/customers/{customer}"]
    written = counted["endpoints"]["POST /v1/customers"]
    nothing = {"limited": 0, "errors": 0, "lost": 0, "replayed": 0}
    assert read == nothing | {"calls": 2, "ok": 1, "errors": 1}
    assert written == nothing | {"calls": 2, "ok": 1, "limited": 1}
    await sandbox.reset_counters()
    assert (await sandbox.counters())["total"] == 0
