"""Cases of requests in general: idempotency keys, limits, events of changes that change nothing."""

import asyncio
from collections.abc import Mapping
from uuid import uuid4

from sandbox.conformance.account import BUSY, TestAccount
from sandbox.conformance.probe import Case, Probe

REPLAYED = "idempotent-replayed"


async def replayed_errors(account: TestAccount, probe: Probe) -> None:
    """A stored error says that it is replayed."""
    draft, key = (await account.draft())["id"], str(uuid4())
    for number, replayed in enumerate((None, "true"), 1):
        answer = await account.call("POST", f"invoices/{draft}/void", {}, key)
        probe.expect(f"{REPLAYED} of attempt {number}", replayed, answer.headers.get(REPLAYED))


async def stored_errors(account: TestAccount, probe: Probe) -> None:
    """A state that forbids the call is stored; a parameter that nobody knows is not."""
    missing, key = "invoices/in_conformance/finalize", str(uuid4())
    for _ in range(2):
        answer = await account.call("POST", missing, {}, key)
    probe.expect("a missing object is stored", "true", answer.headers.get(REPLAYED))
    key = str(uuid4())
    for params in ({"nonsense": "1"}, {"nonsense": "1"}):
        answer = await account.call("POST", "customers", params, key)
    probe.expect("an unknown parameter is stored", None, answer.headers.get(REPLAYED))
    other = await account.call("POST", "customers", {"name": "Conformance"}, key)
    probe.expect("the key is free afterwards", 200, other.status)
    if not other.error:
        await account.delete(f"customers/{other.body['id']}")


async def limits(account: TestAccount, probe: Probe) -> None:
    """A burst of list calls meets a limiter that says which."""
    answers = await asyncio.gather(*(account.burst("customers") for _ in range(60)))
    refused = [answer for answer in answers if answer.status == BUSY]
    probe.expect("some of sixty calls at once are refused", True, bool(refused))
    reasons = {answer.headers.get("stripe-rate-limited-reason") is not None for answer in refused}
    probe.expect("each names the limit", {True}, reasons)


async def no_op_update(account: TestAccount, probe: Probe) -> None:
    """Writing what is there already is no change."""
    customer = (await account.customer(name="Same"))["id"]
    await account.post(f"customers/{customer}", {"name": "Same"})
    probe.expect("events", ["customer.created"], await account.events(customer))


async def deletions(account: TestAccount, probe: Probe) -> None:
    """A draft goes with its items; a customer leaves drafts behind."""
    made = await account.draft({"amount": 7})
    parent = made["lines"]["data"][0]["parent"]["invoice_item_details"]
    await account.delete(f"invoices/{made['id']}")
    item = await account.call("GET", f"invoiceitems/{parent['invoice_item']}")
    probe.expect("status of an item of a deleted draft", 404, item.status)
    other = await account.draft({"amount": 7})
    await account.delete(f"customers/{other['customer']}")
    draft = await account.call("GET", f"invoices/{other['id']}")
    probe.expect("status of a deleted customer's draft", "draft", draft.body.get("status"))


CASES: Mapping[str, Case] = {
    "replayed-errors": replayed_errors,
    "stored-errors": stored_errors,
    "no-op-update": no_op_update,
    "deletions": deletions,
    "limits": limits,
}
