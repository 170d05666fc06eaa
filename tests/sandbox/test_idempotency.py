"""Idempotency keys: replayed for the same request, rejected for another, expired after a day."""

import asyncio

import httpx
import pytest

from tests.support.stripe_sandbox import StripeSandbox

CUSTOMERS = "POST /v1/customers"


def keyed(key: str) -> dict[str, str]:
    """Return the header that carries an idempotency key."""
    return {"idempotency-key": key}


async def test_same_request_under_a_key_executes_once(http: httpx.AsyncClient) -> None:
    """The second response has the first one's bytes and a replay header."""
    first = await http.post("/v1/customers", data={"name": "A"}, headers=keyed("k"))
    again = await http.post("/v1/customers", data={"name": "A"}, headers=keyed("k"))

    assert again.content == first.content
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["original-request"] == first.headers["request-id"]
    assert "idempotent-replayed" not in first.headers
    assert len((await http.get("/v1/customers")).json()["data"]) == 1


async def test_other_parameters_under_a_key_are_rejected(http: httpx.AsyncClient) -> None:
    """A reused key with other parameters is an error, not a replay."""
    await http.post("/v1/customers", data={"name": "A"}, headers=keyed("k"))
    other = await http.post("/v1/customers", data={"name": "B"}, headers=keyed("k"))

    assert other.status_code == 400
    assert other.json()["error"]["type"] == "idempotency_error"


async def test_concurrent_requests_under_a_key_conflict(
    sandbox: StripeSandbox, http: httpx.AsyncClient
) -> None:
    """One is executed, the other gets a 409 that is not stored."""
    await sandbox.settings(latency=True)
    sent = [http.post("/v1/customers", data={"name": "A"}, headers=keyed("k")) for _ in range(2)]
    answers = sorted(await asyncio.gather(*sent), key=lambda answer: answer.status_code)

    assert [answer.status_code for answer in answers] == [200, 409]
    assert answers[1].json()["error"]["code"] == "idempotency_key_in_use"
    after = await http.post("/v1/customers", data={"name": "A"}, headers=keyed("k"))
    assert after.content == answers[0].content


async def test_execution_error_is_stored_under_the_key(http: httpx.AsyncClient) -> None:
    """A missing object stays missing for this key, even when it exists by then."""
    data = {"customer": "cus_none"}
    first = await http.post("/v1/invoices", data=data, headers=keyed("k"))
    again = await http.post("/v1/invoices", data=data, headers=keyed("k"))

    assert (first.status_code, again.status_code) == (400, 400)
    assert again.headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize("data", [{"nmae": "A"}, {"balance": "ten"}])
async def test_validation_error_is_not_stored(
    http: httpx.AsyncClient, data: dict[str, str]
) -> None:
    """The corrected request may use the same key."""
    rejected = await http.post("/v1/customers", data=data, headers=keyed("k"))
    corrected = await http.post("/v1/customers", data={"name": "A"}, headers=keyed("k"))

    assert (rejected.status_code, corrected.status_code) == (400, 200)


@pytest.mark.parametrize("kind", ["rate_limited", "lock_timeout", "error_500_before"])
async def test_rejection_before_execution_is_not_stored(
    sandbox: StripeSandbox, http: httpx.AsyncClient, kind: str
) -> None:
    """After a rate limit, a lock timeout or a 500 before execution the key is still new."""
    await sandbox.fault(kind, CUSTOMERS)
    rejected = await http.post("/v1/customers", data={"name": "A"}, headers=keyed("k"))
    done = await http.post("/v1/customers", data={"name": "A"}, headers=keyed("k"))

    assert rejected.status_code in (429, 500)
    assert done.status_code == 200
    assert "idempotent-replayed" not in done.headers


async def test_error_500_after_execution_is_replayed(
    sandbox: StripeSandbox, http: httpx.AsyncClient
) -> None:
    """The call was executed, and the key never says so."""
    await sandbox.fault("error_500_after", CUSTOMERS)
    answers = [
        await http.post("/v1/customers", data={"name": "A"}, headers=keyed("k")) for _ in range(2)
    ]

    assert [answer.status_code for answer in answers] == [500, 500]
    assert answers[1].headers["idempotent-replayed"] == "true"
    assert len((await http.get("/v1/customers")).json()["data"]) == 1


async def test_key_expires_after_a_day(sandbox: StripeSandbox, http: httpx.AsyncClient) -> None:
    """The same request is then executed again."""
    await http.post("/v1/customers", data={"name": "A"}, headers=keyed("k"))
    await sandbox.advance(24 * 3600 + 1)
    await http.post("/v1/customers", data={"name": "A"}, headers=keyed("k"))

    assert len((await http.get("/v1/customers")).json()["data"]) == 2


async def test_get_and_delete_ignore_idempotency_keys(http: httpx.AsyncClient) -> None:
    """At Stripe keys are for POST only."""
    customer = (await http.post("/v1/customers")).json()["id"]
    path = f"/v1/customers/{customer}"
    await http.get(path, headers=keyed("k"))
    deleted = await http.delete(path, headers=keyed("k"))
    again = await http.delete(path, headers=keyed("k"))

    assert (deleted.status_code, again.status_code) == (200, 404)
