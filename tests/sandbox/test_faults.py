"""Faults apply when, as often as, and to the object for which they were added."""

from typing import Any

import httpx
import pytest
import stripe
from stripe import StripeClient

from tests.support.stripe_sandbox import StripeSandbox
from tests.support.wait import wait_for_value

ADD = "POST /v1/invoices/{invoice}/add_lines"
LINES: dict[str, Any] = {"lines": [{"amount": 1}, {"amount": 2}, {"amount": 4}]}


async def invoice_total(client: StripeClient, invoice: str) -> int:
    """Return the invoice's current total."""
    return int((await client.v1.invoices.retrieve_async(invoice)).total)


@pytest.mark.parametrize(("kind", "done"), [("answer_lost_before", 0), ("answer_lost_after", 7)])
async def test_lost_response_hides_whether_call_was_executed(
    sandbox: StripeSandbox, client: StripeClient, draft: Any, kind: str, done: int
) -> None:
    """The connection breaks the same way in both cases; a retry under the key succeeds."""
    await sandbox.fault(kind, ADD)
    with pytest.raises(stripe.APIConnectionError):
        await client.v1.invoices.add_lines_async(draft.id, LINES, {"idempotency_key": "k"})

    assert await invoice_total(client, draft.id) == done
    again = await client.v1.invoices.add_lines_async(draft.id, LINES, {"idempotency_key": "k"})
    assert again.total == 7
    assert await invoice_total(client, draft.id) == 7


async def test_late_delivery_executes_after_the_client_gave_up(
    sandbox: StripeSandbox, client: StripeClient, draft: Any
) -> None:
    """A network may deliver a request late."""
    await sandbox.fault("late_delivery", ADD, seconds=0.1)
    with pytest.raises(stripe.APIConnectionError):
        await client.v1.invoices.add_lines_async(draft.id, LINES)

    assert await invoice_total(client, draft.id) == 0
    await wait_for_value(lambda: invoice_total(client, draft.id), 7)


async def test_error_500_before_executes_nothing(
    sandbox: StripeSandbox, client: StripeClient, draft: Any
) -> None:
    """A retry under the same key executes the call."""
    await sandbox.fault("error_500_before", ADD)
    with pytest.raises(stripe.APIError) as raised:
        await client.v1.invoices.add_lines_async(draft.id, LINES, {"idempotency_key": "k"})

    assert raised.value.http_status == 500
    done = await client.v1.invoices.add_lines_async(draft.id, LINES, {"idempotency_key": "k"})
    assert done.total == 7


async def test_partial_500_applies_half_of_a_bulk_call(
    sandbox: StripeSandbox, client: StripeClient, draft: Any
) -> None:
    """The worst case: some lines are there, and the key replays the 500 for ever."""
    await sandbox.fault("partial_500_after", ADD)
    for _ in range(2):
        with pytest.raises(stripe.APIError):
            await client.v1.invoices.add_lines_async(draft.id, LINES, {"idempotency_key": "k"})

    assert await invoice_total(client, draft.id) == 3


async def test_slow_fault_delays_the_call(sandbox: StripeSandbox, client: StripeClient) -> None:
    """The client's timeout is its own."""
    await sandbox.fault("slow", "GET /v1/invoices", seconds=0.3)
    hasty = stripe.HTTPXClient(timeout=0.1)
    impatient = StripeClient("sk_test_1", base_addresses={"api": sandbox.url}, http_client=hasty)
    with pytest.raises(stripe.APIConnectionError):
        await impatient.v1.invoices.list_async()
    await hasty.close_async()

    assert (await client.v1.invoices.list_async()).data == []


async def test_fault_skips_after_and_repeats_times(
    sandbox: StripeSandbox, http: httpx.AsyncClient
) -> None:
    """`after` requests pass first, then `times` are affected."""
    await sandbox.fault("rate_limited", "*", times=2, after=1, reason="global-rate")
    statuses = [(await http.get("/v1/customers")).status_code for _ in range(5)]

    assert statuses == [200, 429, 429, 200, 200]


async def test_fault_with_object_affects_only_that_object(
    sandbox: StripeSandbox, http: httpx.AsyncClient
) -> None:
    """Requests for other customers succeed."""
    a, b = [(await http.post("/v1/customers")).json()["id"] for _ in range(2)]
    await sandbox.fault("rate_limited", "GET /v1/customers/{customer}", object=a)

    assert (await http.get(f"/v1/customers/{b}")).status_code == 200
    assert (await http.get(f"/v1/customers/{a}")).status_code == 429


async def test_faults_are_cleared_and_invalid_ones_rejected(
    sandbox: StripeSandbox, http: httpx.AsyncClient
) -> None:
    """A typo in a test must not disable it."""
    await sandbox.fault("rate_limited", times=100)
    await sandbox.clear_faults()

    assert (await http.get("/v1/customers")).status_code == 200
    with pytest.raises(httpx.HTTPStatusError, match="unknown fault"):
        await sandbox.fault("rate_limitted")
    with pytest.raises(httpx.HTTPStatusError, match="no such endpoint"):
        await sandbox.fault("rate_limited", "POST /v1/invoices/{id}/add_lines")
