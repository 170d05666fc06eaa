"""The control API validates its parameters and names the valid ones."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from stripe import StripeClient

from sandbox.admin import ROUTES, Sandbox
from sandbox.errors import StripeError
from sandbox.settings import Settings
from tests.support.stripe_sandbox import StripeSandbox


async def send_control_request(
    sandbox: StripeSandbox, route: str, body: Any = None
) -> httpx.Response:
    """Send one request to the control API, as a person with curl does."""
    method, path = route.split(" ")
    async with httpx.AsyncClient(base_url=sandbox.url, trust_env=False, verify=False) as http:
        return await http.request(method, f"/_sandbox/{path}", json=body)


@pytest.mark.parametrize("route", ROUTES)
async def test_unknown_parameter_is_rejected_with_the_valid_names(
    sandbox: StripeSandbox, route: str
) -> None:
    """A typo in a test must not disable it."""
    cases = {
        "POST dashboard": ({"action": "finalize", "invoice": "in_1"}, "unknown parameter: advnce"),
        "POST faults": ({"kind": "slow"}, "match, times, after, object, seconds"),
        "POST settings": ({}, "concurrent_lists"),
        "POST clock": ({}, "may be given: advance"),
        "POST webhooks/endpoint": ({}, "url, secret, enabled_events"),
    }
    body, remedy = cases.get(route, ({}, "may be given: "))
    response = await send_control_request(sandbox, route, body | {"advnce": 1})

    assert response.status_code == 400
    assert "advnce" in response.text
    assert remedy in response.text


@pytest.mark.parametrize(
    ("route", "body", "remedy"),
    [
        ("POST faults", {"kind": "webhook_drop", "seconds": 1}, "match, times, after, object"),
        ("POST faults", {"kind": "slow", "times": "2"}, "give something like 1"),
        ("POST faults", {}, "answer_lost_before"),
        ("POST settings", {"limits": 1}, "give something like False"),
        ("POST settings", {"mode": "dead"}, "live or sandbox"),
        ("POST dashboard", {"action": "finalise", "invoice": "in_1"}, "finalize"),
        ("POST clock?advance=5", None, "give something like"),
        ("POST clock", [], "mapping"),
        ("POST fault", {}, "POST faults"),
    ],
)
async def test_invalid_control_request_is_rejected_with_the_remedy(
    sandbox: StripeSandbox, route: str, body: Any, remedy: str
) -> None:
    """A wrong type, a parameter of another fault, an unknown path."""
    response = await send_control_request(sandbox, route, body)

    assert response.status_code in (400, 404)
    assert remedy in response.text


def test_seed_file_is_validated_like_a_request(tmp_path: Path) -> None:
    """An unknown parameter creates nothing."""
    seeds = tmp_path / "seeds.json"
    seeds.write_text(json.dumps({"customers": [{"id": "cus_a", "nmae": "A"}]}))
    sandbox = Sandbox(Settings())
    with pytest.raises(StripeError, match="nmae"):
        sandbox.load_seed(seeds)

    assert sandbox.account.rows["customers"] == {}


async def test_detached_card_can_be_attached_to_another_customer(client: StripeClient) -> None:
    """Only its new customer lists it."""
    one, other = [await client.v1.customers.create_async({}) for _ in range(2)]
    card = await client.v1.payment_methods.attach_async("pm_card_visa", {"customer": one.id})
    await client.v1.payment_methods.detach_async(card.id)
    await client.v1.payment_methods.attach_async(card.id, {"customer": other.id})

    lists = [
        await client.v1.customers.payment_methods.list_async(owner.id) for owner in (one, other)
    ]
    assert [[method.id for method in cards.data] for cards in lists] == [[], [card.id]]


async def test_update_without_changes_emits_no_event(client: StripeClient, draft: Any) -> None:
    """An update with the current values is not an event."""
    for _ in range(2):
        await client.v1.invoices.update_async(draft.id, {"description": "March"})

    assert len((await client.v1.events.list_async({"type": "invoice.updated"})).data) == 1


async def test_failed_automatic_finalization_emits_one_event(
    sandbox: StripeSandbox, client: StripeClient
) -> None:
    """The draft stops advancing by itself."""
    customer = await client.v1.customers.create_async({})
    draft = await client.v1.invoices.create_async(
        {"customer": customer.id, "auto_advance": True, "default_payment_method": "pm_gone"}
    )
    await client.v1.invoices.add_lines_async(draft.id, {"lines": [{"amount": 100}]})
    for _ in range(2):
        await sandbox.advance(3601)
    failed = await client.v1.events.list_async({"type": "invoice.finalization_failed"})
    stopped = await client.v1.invoices.retrieve_async(draft.id)

    assert len(failed.data) == 1
    assert (stopped.status, stopped.auto_advance) == ("draft", False)
