"""The account itself, tax settings, portals and subscriptions of others; restricted keys."""

from typing import Any

import httpx
import pytest
import stripe
from stripe import StripeClient

from tests.support.stripe_sandbox import StripeSandbox


async def test_new_account_can_charge_and_has_a_portal(client: StripeClient) -> None:
    """A test account has these without anybody's doing."""
    account = await client.v1.accounts.retrieve_current_async()
    portals = await client.v1.billing_portal.configurations.list_async({"is_default": True})
    settings = await client.v1.tax.settings.retrieve_async()

    assert account.charges_enabled
    assert [portal.active for portal in portals.data] == [True]
    assert settings.status == "pending"


async def test_objects_of_other_systems_are_placed_and_changed(
    sandbox: StripeSandbox, client: StripeClient
) -> None:
    """The API makes no subscriptions here; the control API does, and changes singletons."""
    customer = await client.v1.customers.create_async({"email": "a@example.com"})
    fields: dict[str, Any] = {"customer": customer.id, "status": "active"}
    placed = await sandbox.put_object("subscriptions", **fields)
    await sandbox.put_object("settings", id="tax_settings", status="active")

    [found] = (await client.v1.subscriptions.list_async({"customer": customer.id})).data
    assert (found.id, found.status) == (placed["id"], "active")
    assert (await client.v1.tax.settings.retrieve_async()).status == "active"


async def test_restricted_key_is_refused_what_it_may_not_do(
    sandbox: StripeSandbox, http: httpx.AsyncClient
) -> None:
    """Rights are for the first part of a path; write includes read."""
    key = "rk_test_reader"
    await sandbox.restrict_key(key, customers="read", invoices="write")
    headers = {"authorization": f"Bearer {key}"}

    async def status(method: str, path: str) -> int:
        return (await http.request(method, path, headers=headers)).status_code

    assert await status("GET", "/v1/customers") == 200
    assert await status("POST", "/v1/customers") == 403
    assert await status("GET", "/v1/invoices") == 200
    assert await status("GET", "/v1/prices") == 403
    assert (await http.get("/v1/prices")).status_code == 200


@pytest.mark.parametrize(
    "body",
    [{"key": "sk_test_1", "rights": {}}, {"key": "rk_test_1", "rights": {"customers": "all"}}],
)
async def test_malformed_restriction_is_refused(
    sandbox: StripeSandbox, body: dict[str, Any]
) -> None:
    """A wrong kind of key or right says what is wanted."""
    with pytest.raises(httpx.HTTPStatusError, match="rk_test_"):
        await sandbox.control("POST", "keys", body)


async def test_revoked_key_is_unknown_until_it_is_restored(
    sandbox: StripeSandbox, http: httpx.AsyncClient
) -> None:
    """Also a secret key; other keys go on."""
    await sandbox.revoke_key("sk_test_1")
    assert (await http.get("/v1/customers")).status_code == 401
    other = {"authorization": "Bearer sk_test_2"}
    assert (await http.get("/v1/customers", headers=other)).status_code == 200
    await sandbox.reset()
    assert (await http.get("/v1/customers")).status_code == 200


async def test_sdk_sees_a_permission_error(sandbox: StripeSandbox) -> None:
    """stripe-python raises its own error for a 403."""
    await sandbox.restrict_key("rk_test_none")
    http = stripe.HTTPXClient(timeout=30)
    client = StripeClient("rk_test_none", base_addresses={"api": sandbox.url}, http_client=http)
    with pytest.raises(stripe.PermissionError):
        await client.v1.customers.list_async()
    await http.close_async()
