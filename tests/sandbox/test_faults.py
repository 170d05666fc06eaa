"""Accidents happen when ordered, as often as ordered, and to whom they were ordered."""

from typing import Any

import httpx
import pytest
import stripe
from stripe import StripeClient

from tests.support.polling import until
from tests.support.stripe_sandbox import StripeSandbox

ADD = "POST /v1/invoices/{invoice}/add_lines"
LINES: dict[str, Any] = {"lines": [{"amount": 1}, {"amount": 2}, {"amount": 4}]}


async def total(client: StripeClient, invoice: str) -> int:
    """Return what the invoice adds up to now."""
    return int((await client.v1.invoices.retrieve_async(invoice)).total)


@pytest.mark.parametrize(("kind", "done"), [("answer_lost_before", 0), ("answer_lost_after", 7)])
async def test_a_lost_answer_leaves_the_caller_without_a_clue(
    sandbox: StripeSandbox, client: StripeClient, draft: Any, kind: str, done: int
) -> None:
    """The connection breaks the same way, done or not; a retry under the key ends both well."""
    await sandbox.fault(kind, ADD)
    with pytest.raises(stripe.APIConnectionError):
        await client.v1.invoices.add_lines_async(draft.id, LINES, {"idempotency_key": "k"})

    assert await total(client, draft.id) == done
    again = await client.v1.invoices.add_lines_async(draft.id, LINES, {"idempotency_key": "k"})
    assert again.total == 7
    assert await total(client, draft.id) == 7


async def test_a_request_can_arrive_long_after_its_caller_gave_up(
    sandbox: StripeSandbox, client: StripeClient, draft: Any
) -> None:
    """A network may deliver what nobody waits for any more."""
    await sandbox.fault("late_delivery", ADD, seconds=0.1)
    with pytest.raises(stripe.APIConnectionError):
        await client.v1.invoices.add_lines_async(draft.id, LINES)

    assert await total(client, draft.id) == 0
    await until(lambda: total(client, draft.id), 7)


async def test_a_500_before_the_work_did_nothing(
    sandbox: StripeSandbox, client: StripeClient, draft: Any
) -> None:
    """The same key then does the work."""
    await sandbox.fault("error_500_before", ADD)
    with pytest.raises(stripe.APIError) as raised:
        await client.v1.invoices.add_lines_async(draft.id, LINES, {"idempotency_key": "k"})

    assert raised.value.http_status == 500
    done = await client.v1.invoices.add_lines_async(draft.id, LINES, {"idempotency_key": "k"})
    assert done.total == 7


async def test_a_500_may_hide_half_a_bulk_call(
    sandbox: StripeSandbox, client: StripeClient, draft: Any
) -> None:
    """The deliberate worst case: some lines are there, and the key says 500 for ever."""
    await sandbox.fault("partial_500_after", ADD)
    for _ in range(2):
        with pytest.raises(stripe.APIError):
            await client.v1.invoices.add_lines_async(draft.id, LINES, {"idempotency_key": "k"})

    assert await total(client, draft.id) == 3


async def test_a_slow_call_is_only_slow(sandbox: StripeSandbox, client: StripeClient) -> None:
    """A caller's timeout is its own business."""
    await sandbox.fault("slow", "GET /v1/invoices", seconds=0.3)
    hasty = stripe.HTTPXClient(timeout=0.1)
    impatient = StripeClient("sk_test_1", base_addresses={"api": sandbox.url}, http_client=hasty)
    with pytest.raises(stripe.APIConnectionError):
        await impatient.v1.invoices.list_async()
    await hasty.close_async()

    assert (await client.v1.invoices.list_async()).data == []


async def test_a_fault_strikes_after_so_many_and_so_often(
    sandbox: StripeSandbox, http: httpx.AsyncClient
) -> None:
    """`after` lets some pass, `times` ends it."""
    await sandbox.fault("rate_limited", "*", times=2, after=1, reason="global-rate")
    statuses = [(await http.get("/v1/customers")).status_code for _ in range(5)]

    assert statuses == [200, 429, 429, 200, 200]


async def test_a_fault_can_be_meant_for_one_object(
    sandbox: StripeSandbox, http: httpx.AsyncClient
) -> None:
    """Other customers go on as if nothing were."""
    a, b = [(await http.post("/v1/customers")).json()["id"] for _ in range(2)]
    await sandbox.fault("rate_limited", "GET /v1/customers/{customer}", object=a)

    assert (await http.get(f"/v1/customers/{b}")).status_code == 200
    assert (await http.get(f"/v1/customers/{a}")).status_code == 429


async def test_orders_can_be_cancelled_and_nonsense_is_refused(
    sandbox: StripeSandbox, http: httpx.AsyncClient
) -> None:
    """A typo in a test must not become a test of nothing."""
    await sandbox.fault("rate_limited", times=100)
    await sandbox.no_faults()

    assert (await http.get("/v1/customers")).status_code == 200
    with pytest.raises(httpx.HTTPStatusError, match="unknown fault"):
        await sandbox.fault("rate_limitted")
    with pytest.raises(httpx.HTTPStatusError, match="no such endpoint"):
        await sandbox.fault("rate_limited", "POST /v1/invoices/{id}/add_lines")
