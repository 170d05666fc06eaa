"""The audit log of Support's actions: refused ones and ones with an unknown outcome."""

import re

import pytest
from redis.asyncio import Redis

from billing.events.effects import EventRef
from billing.ledger import keys
from billing.usage import CustomerId
from resolvers.context import Role
from resolvers.permissions import PERMISSIONS
from tests.resolvers.conftest import SUPPORT, ApiHarness, panel_viewer
from tests.support.mutations import ADJUST, FINALIZE, HOLD, REPAIR, RETRY, audit_entries, draft_of
from tests.support.stripe_sandbox import StripeSandbox


async def test_action_with_lost_answer_is_logged_as_unknown(
    api: ApiHarness, sandbox: StripeSandbox
) -> None:
    """If Stripe's answer is lost, the log shows that the action began, and by whom."""
    customer = await api.shop.customer()
    invoice = await api.create_invoice(customer, 900)
    await sandbox.fault("answer_lost_after", "POST /v1/invoices/{invoice}/finalize")

    broken = (await api.query(SUPPORT, FINALIZE, id=invoice, why="agreed"))["finalizeInvoice"]

    assert [error["code"] for error in broken["errors"]] == ["STRIPE_UNAVAILABLE"]
    [entry] = await audit_entries(api, customer)
    assert (entry["outcome"], entry["by"], entry["reason"]) == (
        "UNKNOWN",
        SUPPORT.subject,
        "agreed",
    )


async def test_refusal_by_the_ledger_is_logged(api: ApiHarness) -> None:
    """The log shows that a refused adjustment is not on the invoice."""
    customer = await api.shop.customer()
    await api.services.ledger.usage.register_customer(
        CustomerId(customer), "eur"
    )  # and the price is in dollars
    variables = {"id": customer, "sku": "egress-gb", "q": "1", "why": "typo", "key": "k1"}

    refused = (await api.query(SUPPORT, ADJUST, **variables))["adjustUsage"]

    assert [error["code"] for error in refused["errors"]] == ["INVALID_INPUT"]
    assert [entry["outcome"] for entry in await audit_entries(api, customer)] == ["REFUSED"]


async def test_refused_actions_of_support_are_logged(api: ApiHarness) -> None:
    """The log shows who attempted an action, why, and the code of the refusal; customers' requests are not in it."""
    customer = await api.shop.customer()
    await api.record_usage(customer)
    await api.flush(customer)
    sync = """mutation ($id: ID!) { syncBilling(input: {customerId: $id}) { sync { id } } }"""
    made = (await api.query(SUPPORT, sync, id=customer))["syncBilling"]["sync"]["id"]
    await api.query(SUPPORT, FINALIZE, id=await draft_of(api, customer), why="send it")
    await api.query(SUPPORT, HOLD, id=customer, why="disputed")

    await api.query(SUPPORT, sync, id=customer)
    await api.query(SUPPORT, RETRY, id=made)
    await api.query(SUPPORT, REPAIR, id=customer, why="looks odd")
    await api.query(panel_viewer(customer), sync, id=customer)  # no act of Support's

    refused = [
        entry for entry in await audit_entries(api, customer) if entry["outcome"] == "REFUSED"
    ]
    assert [
        (entry["action"], entry["reason"], entry["detail"]["refusal"]) for entry in refused
    ] == [
        ("repairDrift", "looks odd", "ON_HOLD"),
        ("retrySync", None, "ON_HOLD"),
        ("syncBilling", None, "ON_HOLD"),
        ("finalizeInvoice", "send it", "INVALID_INPUT"),
    ]


ACTS = {
    "syncBilling": '{customerId: "CUSTOMER"}',
    "createPortalSession": '{customerId: "CUSTOMER", returnUrl: "https://fly.example/", reason: "asked by phone"}',
    "adjustUsage": '{customerId: "CUSTOMER", sku: "egress-gb", quantity: "-1", reason: "typo", idempotencyKey: "k"}',
    "holdBilling": '{customerId: "CUSTOMER", reason: "disputed"}',
    "releaseBilling": '{customerId: "CUSTOMER", reason: "settled"}',
    "finalizeInvoice": '{invoiceId: "INVOICE", reason: "agreed"}',
    "previewSync": '{customerId: "CUSTOMER"}',
    "retrySync": '{syncId: "SYNC"}',
    "repairDrift": '{customerId: "CUSTOMER", reason: "looks odd"}',
    "replayWebhookEvent": '{eventId: "EVENT"}',
    "sweepWebhookEvents": "{}",
}


@pytest.fixture
async def ids(api: ApiHarness) -> dict[str, str]:
    """A customer with a synced draft, on hold, and what the acts of Support name."""
    customer = await api.shop.customer()
    await api.record_usage(customer)
    await api.flush(customer)
    query = """query ($id: ID!) { customer(id: $id) { syncState { lastSync { id } } } }"""
    state = (await api.query(SUPPORT, query, id=customer))["customer"]["syncState"]
    await api.services.inbox.receive(
        [EventRef("evt_1", "customer.updated", customer, CustomerId(customer))]
    )
    return {
        "CUSTOMER": customer,
        "INVOICE": await draft_of(api, customer),
        "SYNC": state["lastSync"]["id"],
        "EVENT": "evt_1",
    }


def test_every_mutation_of_support_is_listed_here() -> None:
    """A new one reaches a customer's money or portal too, so it is audited."""
    mutations = {
        field
        for (type_name, field), roles in PERMISSIONS.items()
        if type_name == "Mutation" and Role.SUPPORT in roles
    }

    assert mutations == ACTS.keys()


@pytest.mark.parametrize("action", ACTS)
async def test_every_act_of_support_is_logged_before_it_is_done(
    api: ApiHarness,
    ids: dict[str, str],
    redis: Redis,
    sandbox: StripeSandbox,
    monkeypatch: pytest.MonkeyPatch,
    action: str,
) -> None:
    """Without the log nothing is done: no call of Stripe's, no change of the ledger. With it there is one entry."""
    given = ACTS[action]
    for name, known in ids.items():
        given = given.replace(name, known)
    document = f"mutation {{ {action}(input: {given}) {{ errors {{ code }} }} }}"
    if action == "releaseBilling":
        await api.services.ledger.holds.place(CustomerId(ids["CUSTOMER"]), "disputed", "agent-0")
    await sandbox.reset_counters()
    before = await ledger_content(redis)
    await redis.execute_command("ACL", "SETUSER", "default", "-xadd")
    try:
        refused = (await api.query(SUPPORT, document))[action]["errors"]
    finally:
        await redis.execute_command("ACL", "SETUSER", "default", "+xadd")
    assert [error["code"] for error in refused] == ["LEDGER_UNAVAILABLE"]
    assert await ledger_content(redis) == before
    assert (await sandbox.counters())["writes"] == 0

    monkeypatch.setattr("resolvers.mutations.create_portal_session.MAX_WAIT_SECONDS", 0)
    await api.query(SUPPORT, document)
    owners = (CustomerId(ids["CUSTOMER"]), None)
    entries = [entry for owner in owners for entry in await redis.xrange(keys.audit(owner))]
    assert [(fields[b"action"], fields[b"by"]) for _, fields in entries] == [
        (action.encode(), SUPPORT.subject.encode())
    ]


async def ledger_content(redis: Redis) -> dict[bytes, bytes | None]:
    """Every key of the ledger and the inbox, with what it holds."""
    found = [key async for key in redis.scan_iter() if re.match(rb"\{b\d\d\}|\{inbox\}", key)]
    return {key: await redis.dump(key) for key in sorted(found)}
