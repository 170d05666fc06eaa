"""Rate, concurrency and lock limits are Stripe's, and every call is counted."""

import asyncio
from collections import Counter

import httpx
import pytest

from sandbox.errors import StripeError
from sandbox.limits import Limiter
from sandbox.settings import Settings
from tests.support.stripe_sandbox import StripeSandbox
from tests.support.wait import wait_until

ADD = "POST /v1/invoices/{invoice}/add_lines"


async def get_concurrently(http: httpx.AsyncClient, paths: list[str]) -> list[httpx.Response]:
    """GET all paths at once."""
    return list(await asyncio.gather(*(http.get(path) for path in paths)))


def count_admitted(limiter: Limiter, endpoints: list[str]) -> Counter[str]:
    """Request each endpoint in order; count the admitted calls and the reasons of the others."""
    counted: Counter[str] = Counter()
    for endpoint in endpoints:
        try:
            limiter.admit(endpoint)
            counted["ok"] += 1
        except StripeError as error:
            counted[error.headers["stripe-rate-limited-reason"]] += 1
    return counted


def test_endpoint_limit_is_25_per_second_and_search_20() -> None:
    """All ids share the template's bucket; a second refills it."""
    now = [100.0]
    limiter = Limiter(Settings(), 0, lambda: now[0])

    assert count_admitted(limiter, [ADD] * 40) == {"ok": 25, "endpoint-rate": 15}
    now[0] += 0.4
    assert count_admitted(limiter, [ADD] * 40) == {"ok": 10, "endpoint-rate": 30}
    now[0] += 60
    searches = ["GET /v1/customers/search"] * 40
    assert count_admitted(limiter, searches) == {"ok": 20, "endpoint-rate": 20}


@pytest.mark.parametrize(("mode", "most"), [("live", 100), ("sandbox", 25)])
def test_account_limit_is_100_per_second_and_25_in_sandbox_mode(mode: str, most: int) -> None:
    """Endpoints within their own limits share the account's."""
    limiter = Limiter(Settings(mode=mode), 0, lambda: 100.0)
    calls = [f"GET /v1/{n % 8}" for n in range(160)]

    assert count_admitted(limiter, calls) == {"ok": most, "global-rate": 160 - most}


async def test_rate_limited_response_names_the_limit(
    sandbox: StripeSandbox, http: httpx.AsyncClient
) -> None:
    """A client slows down for the limiter that a 429 names."""
    await sandbox.settings(limits=True)

    async def limited() -> bool:
        answers = await get_concurrently(http, [f"/v1/customers/cus_{n}" for n in range(60)])
        reasons = {a.headers.get("stripe-rate-limited-reason") for a in answers}
        assert {answer.status_code for answer in answers} <= {404, 429}
        return "endpoint-rate" in reasons

    await wait_until(limited, "a call is rate limited", 10)


async def test_concurrent_lists_are_limited(
    sandbox: StripeSandbox, http: httpx.AsyncClient
) -> None:
    """Lists are limited by how many run, not only by their rate."""
    await sandbox.settings(limits=True, latency=True, concurrent_lists=3)
    answers = await get_concurrently(http, ["/v1/invoices"] * 8)

    reasons = [answer.headers.get("stripe-rate-limited-reason") for answer in answers]
    assert reasons.count("endpoint-concurrency") == 5


async def test_concurrent_writes_to_an_object_time_out(
    sandbox: StripeSandbox, http: httpx.AsyncClient
) -> None:
    """A lock timeout has no limiter header and no request id."""
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


async def test_calls_are_counted_by_endpoint_and_outcome(
    sandbox: StripeSandbox, http: httpx.AsyncClient
) -> None:
    """Benchmarks read the cost of a design in calls here."""
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
