"""The control path does what it is told, or says what it could have been told."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from stripe import StripeClient

from sandbox.admin import ACTS, World
from sandbox.errors import StripeError
from sandbox.faults import Settings
from tests.support.stripe_sandbox import StripeSandbox


async def ask(sandbox: StripeSandbox, act: str, body: Any = None) -> httpx.Response:
    """Send one request to the control path as a person with curl would."""
    method, path = act.split(" ")
    async with httpx.AsyncClient(base_url=sandbox.url, trust_env=False, verify=False) as http:
        return await http.request(method, f"/_sandbox/{path}", json=body)


@pytest.mark.parametrize("act", ACTS)
async def test_an_unknown_parameter_is_refused_and_the_known_ones_are_named(
    sandbox: StripeSandbox, act: str
) -> None:
    """A typo in a test must not become a test of nothing."""
    known = {
        "POST dashboard": ({"action": "finalize", "invoice": "in_1"}, "unknown parameter: advnce"),
        "POST faults": ({"kind": "slow"}, "match, times, after, object, seconds"),
        "POST settings": ({}, "concurrent_lists"),
        "POST clock": ({}, "may be given: advance"),
        "POST webhooks/endpoint": ({}, "url, secret, enabled_events"),
    }
    body, cure = known.get(act, ({}, "may be given: "))
    answer = await ask(sandbox, act, body | {"advnce": 1})

    assert answer.status_code == 400
    assert "advnce" in answer.text
    assert cure in answer.text


@pytest.mark.parametrize(
    ("act", "body", "cure"),
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
async def test_what_cannot_be_done_is_refused_with_its_cure(
    sandbox: StripeSandbox, act: str, body: Any, cure: str
) -> None:
    """Of another kind, of another fault, in another place, or not there at all."""
    answer = await ask(sandbox, act, body)

    assert answer.status_code in (400, 404)
    assert cure in answer.text


def test_a_seed_file_is_held_against_the_api(tmp_path: Path) -> None:
    """A parameter that Stripe does not have seeds nothing."""
    seeds = tmp_path / "seeds.json"
    seeds.write_text(json.dumps({"customers": [{"id": "cus_a", "nmae": "A"}]}))
    world = World(Settings())
    with pytest.raises(StripeError, match="nmae"):
        world.seed_from(seeds)

    assert world.account.rows["customers"] == {}


async def test_a_card_can_move_to_another_customer(client: StripeClient) -> None:
    """Who has it lists it, who had it does not."""
    one, other = [await client.v1.customers.create_async({}) for _ in range(2)]
    card = await client.v1.payment_methods.attach_async("pm_card_visa", {"customer": one.id})
    await client.v1.payment_methods.detach_async(card.id)
    await client.v1.payment_methods.attach_async(card.id, {"customer": other.id})

    held = [await client.v1.customers.payment_methods.list_async(each.id) for each in (one, other)]
    assert [[each.id for each in cards.data] for cards in held] == [[], [card.id]]


async def test_a_change_that_changes_nothing_is_not_told(client: StripeClient, draft: Any) -> None:
    """An update with what is already there leaves no event."""
    for _ in range(2):
        await client.v1.invoices.update_async(draft.id, {"description": "March"})

    assert len((await client.v1.events.list_async({"type": "invoice.updated"})).data) == 1


async def test_a_draft_that_the_clock_cannot_finalize_says_so_once(
    sandbox: StripeSandbox, client: StripeClient
) -> None:
    """It stops advancing by itself and waits for somebody."""
    customer = await client.v1.customers.create_async({})
    draft = await client.v1.invoices.create_async(
        {"customer": customer.id, "auto_advance": True, "default_payment_method": "pm_gone"}
    )
    await client.v1.invoices.add_lines_async(draft.id, {"lines": [{"amount": 100}]})
    for _ in range(2):
        await sandbox.advance(3601)
    failed = await client.v1.events.list_async({"type": "invoice.finalization_failed"})
    seen = await client.v1.invoices.retrieve_async(draft.id)

    assert len(failed.data) == 1
    assert (seen.status, seen.auto_advance) == ("draft", False)
