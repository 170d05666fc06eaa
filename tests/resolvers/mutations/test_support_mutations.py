"""What Support can do: correct, hold, release, finalize, preview, retry, repair, replay; all written down."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from billing.audit import Intent
from billing.events.effects import Notice
from billing.events.events import EventStatus
from billing.invoicing.snapshot import PeriodState
from billing.job_queue import QUEUE
from billing.ledger.syncs import SyncStatus
from billing.usage import CustomerId, Period
from resolvers.mutations import finalize_invoice
from tests.resolvers.conftest import SUPPORT, Desk, panel_of
from tests.support.stripe_sandbox import StripeSandbox

ADJUST = """mutation ($id: ID!, $sku: String!, $q: Decimal!, $why: String!, $key: String!, $month: String) {
  adjustUsage(input: {customerId: $id, sku: $sku, quantity: $q, reason: $why, idempotencyKey: $key, month: $month}) {
    adjustment { id period sku quantity amount { formatted } reason by at } sync { id status trigger } errors { code message path } } }"""
HOLD = """mutation ($id: ID!, $why: String!) { holdBilling(input: {customerId: $id, reason: $why}) {
  hold { reason by since } errors { code message path } } }"""
RELEASE = """mutation ($id: ID!, $why: String!) { releaseBilling(input: {customerId: $id, reason: $why}) {
  customer { id hold { reason } currentPeriod { state } syncState { status } } errors { code message } } }"""
FINALIZE = """mutation ($id: ID!, $why: String!) { finalizeInvoice(input: {invoiceId: $id, reason: $why}) {
  invoice { id status } errors { code message path } } }"""
PREVIEW = """mutation ($id: ID!) { previewSync(input: {customerId: $id}) { errors { code } plan { createsInvoice stripeCalls
  linesAdded { ...Line } linesUpdated { ...Line } linesRemoved { ...Line } } } }
  fragment Line on PlannedLine { sku quantity wasQuantity amount { amount } }"""
RETRY = """mutation ($id: ID!) { retrySync(input: {syncId: $id}) { sync { id status trigger } errors { code message path } } }"""
REPAIR = """mutation ($id: ID!, $why: String!) { repairDrift(input: {customerId: $id, reason: $why}) { sync { id } errors { code message } } }"""
REPLAY = """mutation ($id: ID!) { replayWebhookEvent(input: {eventId: $id}) { event { id status } errors { code path } } }"""
DRIFT = """query ($id: ID!) { customer(id: $id) { drift { checkedAt lines { sku lineId kind expected found amount { amount } } } } }"""
ACTIONS = """query ($id: ID!) { invoice(id: $id) { availableActions { action blockedBy } } }"""
AUDIT = """query ($id: ID!) { customer(id: $id) { auditLog { nodes { at by action reason outcome detail changes { what before after } } } adjustments { nodes { id quantity } } } }"""


async def audited(desk: Desk, customer: str) -> list[dict[str, Any]]:
    """What stands in the audit log, newest first, details parsed."""
    entries = (await desk.ask(SUPPORT, AUDIT, id=customer))["customer"]["auditLog"]["nodes"]
    return [{**each, "detail": json.loads(each["detail"])} for each in entries]


async def draft_of(desk: Desk, customer: str) -> str:
    """The draft that the gateway keeps for *customer*."""
    owner = CustomerId(customer)
    snapshot = await desk.services.ledger.peek(owner, await desk.services.ledger.open_period(owner))
    assert snapshot.invoice is not None
    return snapshot.invoice


async def last_months_draft(desk: Desk) -> tuple[CustomerId, Period, str]:
    """A customer with usage of the month that has ended, that month, and its draft."""
    customer = CustomerId(await desk.shop.customer())
    last_month = Period.containing(datetime.now(UTC)).previous()
    late = (last_month.end - timedelta(minutes=1)).isoformat()
    await desk.use(customer, "1000000", occurred_at=late)
    await desk.flush(customer, last_month)
    invoice = (await desk.services.ledger.peek(customer, last_month)).invoice
    assert invoice is not None
    return customer, last_month, invoice


async def actions(desk: Desk, invoice: str) -> dict[str, list[str]]:
    """What can be done about *invoice*, and what stands in the way."""
    shown = await desk.ask(SUPPORT, ACTIONS, id=invoice)
    return {each["action"]: each["blockedBy"] for each in shown["invoice"]["availableActions"]}


async def test_a_correction_reaches_the_draft_and_the_log(desk: Desk) -> None:
    """Thirty dollars of machine time that never ran come off the bill, and everybody can see who did it."""
    customer = await desk.shop.customer()
    await desk.use(customer, "2000000")
    await desk.flush(customer)

    made = (
        await desk.ask(
            SUPPORT,
            ADJUST,
            id=customer,
            sku="machine-seconds",
            q="-1000000",
            why="outage",
            key="k1",
        )
    )["adjustUsage"]
    await desk.flush(customer)

    assert made["errors"] == []
    assert made["adjustment"]["amount"] == {"formatted": "USD -31.00"}
    assert (made["adjustment"]["by"], made["sync"]["trigger"]) == (SUPPORT.subject, "SUPPORT")
    body = await desk.services.stripe.read(
        f"/v1/invoices/{await draft_of(desk, customer)}", lane=desk.lane
    )
    assert body["total"] == 3100
    [entry] = await audited(desk, customer)
    assert (entry["action"], entry["reason"], entry["by"]) == (
        "adjustUsage",
        "outage",
        SUPPORT.subject,
    )
    assert entry["detail"]["before"] == {"total": "USD 62.00"}
    assert entry["changes"][0] == {"what": "total", "before": "USD 62.00", "after": "USD 31.00"}


async def test_a_correction_sent_twice_corrects_once(desk: Desk) -> None:
    """A button pressed again after a timeout must not take off the money twice."""
    customer = await desk.shop.customer()
    again = {"id": customer, "sku": "egress-gb", "q": "5", "why": "missed", "key": "k1"}

    first = (await desk.ask(SUPPORT, ADJUST, **again))["adjustUsage"]
    second = (await desk.ask(SUPPORT, ADJUST, **again))["adjustUsage"]
    other = (await desk.ask(SUPPORT, ADJUST, **{**again, "q": "6"}))["adjustUsage"]

    assert first["adjustment"] == second["adjustment"]
    assert [(each["code"], each["path"]) for each in other["errors"]] == [
        ("IDEMPOTENCY_CONFLICT", ["input", "idempotencyKey"])
    ]
    assert len(await audited(desk, customer)) == 1
    shown = (await desk.ask(SUPPORT, AUDIT, id=customer))["customer"]["adjustments"]["nodes"]
    assert shown == [{"id": first["adjustment"]["id"], "quantity": "5"}]


@pytest.mark.parametrize(
    ("wrong", "code", "path"),
    [
        ({"q": "0"}, "INVALID_INPUT", "quantity"),
        ({"q": "1" * 16}, "INVALID_INPUT", "quantity"),
        ({"q": "0.0000000000001"}, "INVALID_INPUT", "quantity"),
        ({"q": "a few"}, "INVALID_INPUT", "quantity"),
        ({"q": 1.5}, "INVALID_INPUT", "quantity"),
        ({"sku": "unheard-of"}, "UNKNOWN_SKU", "sku"),
        ({"why": " "}, "INVALID_INPUT", "reason"),
        ({"why": "turned \u202e round"}, "INVALID_INPUT", "reason"),
        ({"key": ""}, "INVALID_INPUT", "idempotencyKey"),
        ({"month": "October"}, "INVALID_INPUT", "month"),
        ({"month": "2026-13"}, "INVALID_INPUT", "month"),
        ({"month": "2098-01"}, "INVALID_INPUT", "month"),
        ({"month": "2020-01"}, "PERIOD_CLOSED", "month"),
        ({"id": "cus_absent"}, "NOT_FOUND", "customerId"),
    ],
)
async def test_a_correction_that_makes_no_sense_is_refused(
    desk: Desk, wrong: dict[str, Any], code: str, path: str
) -> None:
    """The refusal points at the field, so that GraphiQL's user sees where."""
    customer = await desk.shop.customer()
    asked = {"id": customer, "sku": "egress-gb", "q": "1", "why": "because", "key": "k1", **wrong}

    refused = (await desk.ask(SUPPORT, ADJUST, **asked))["adjustUsage"]

    assert [(each["code"], each["path"]) for each in refused["errors"]] == [(code, ["input", path])]
    assert "DONE" not in {each["outcome"] for each in await audited(desk, customer)}


async def test_a_reason_may_be_written_in_any_script(desk: Desk) -> None:
    """Persian, Hebrew and composed emoji need characters that are not printed."""
    customer = await desk.shop.customer()
    why = "\u0645\u06cc\u200c\u062e \u200f\u05e9\u05dc\u200e \U0001f468\u200d\U0001f467"

    held = (await desk.ask(SUPPORT, HOLD, id=customer, why=why))["holdBilling"]

    assert (held["hold"]["reason"], held["errors"]) == (why, [])


async def test_a_hold_stands_until_it_is_released(desk: Desk) -> None:
    """Held billing is seen everywhere, and goes on where it was."""
    customer = await desk.shop.customer()
    await desk.use(customer, "2000000")

    held = (await desk.ask(SUPPORT, HOLD, id=customer, why="disputed"))["holdBilling"]
    again = (await desk.ask(SUPPORT, HOLD, id=customer, why="disputed"))["holdBilling"]
    other = (await desk.ask(SUPPORT, HOLD, id=customer, why="another reason"))["holdBilling"]
    released = (await desk.ask(SUPPORT, RELEASE, id=customer, why="settled"))["releaseBilling"]
    nothing = (await desk.ask(SUPPORT, RELEASE, id=customer, why="twice"))["releaseBilling"]

    assert held["hold"] == again["hold"]
    assert (held["hold"]["reason"], held["hold"]["by"]) == ("disputed", SUPPORT.subject)
    assert other["errors"][0]["code"] == "ON_HOLD"
    assert released["customer"] == nothing["customer"]
    assert released["customer"]["hold"] is None
    assert released["customer"]["currentPeriod"] == {"state": "OPEN"}
    log = await audited(desk, customer)
    assert [(each["action"], each["reason"], each["outcome"]) for each in log] == [
        ("releaseBilling", "twice", "DONE"),
        ("releaseBilling", "settled", "DONE"),
        ("holdBilling", "another reason", "REFUSED"),
        ("holdBilling", "disputed", "DONE"),
        ("holdBilling", "disputed", "DONE"),
    ]
    stood = {"hold": f"disputed ({SUPPORT.subject})"}
    assert [(each["detail"]["before"], each["detail"]["after"]) for each in log] == [
        ({"hold": None}, {"hold": None}),
        (stood, {"hold": None}),
        (stood, {}),
        (stood, stood),
        ({"hold": None}, stood),
    ]
    assert log[2]["detail"]["refusal"] == "ON_HOLD"


async def test_a_hold_that_waited_stands_after_the_release(desk: Desk) -> None:
    """Whoever releases one sees that there is another, and the log says so."""
    customer = await desk.shop.customer()
    await desk.use(customer)
    await desk.ask(SUPPORT, HOLD, id=customer, why="disputed")
    ledger = desk.services.ledger
    await ledger.hold_once(CustomerId(customer), "Invoice in_1 was voided.", "gateway", "in_1")

    released = (await desk.ask(SUPPORT, RELEASE, id=customer, why="settled"))["releaseBilling"]

    assert released["customer"]["hold"] == {"reason": "Invoice in_1 was voided."}
    [entry, _] = await audited(desk, customer)
    assert entry["detail"]["after"] == {"hold": "Invoice in_1 was voided. (gateway)"}


async def test_a_held_month_says_so(desk: Desk) -> None:
    """The customer sees that the bill stands still, Support why."""
    customer = await desk.shop.customer()
    await desk.use(customer, "2000000")
    await desk.flush(customer)
    await desk.ask(SUPPORT, HOLD, id=customer, why="disputed")

    query = "query ($id: ID!) { customer(id: $id) { hold { reason } currentPeriod { state } syncState { status } } }"
    shown = (await desk.ask(SUPPORT, query, id=customer))["customer"]

    assert shown == {
        "hold": {"reason": "disputed"},
        "currentPeriod": {"state": "HELD"},
        "syncState": {"status": "HELD"},
    }
    assert await actions(desk, await draft_of(desk, customer)) == {
        "SYNC": ["ON_HOLD"],
        "ADJUST": [],
        "HOLD": ["ON_HOLD"],
        "RELEASE": [],
        "FINALIZE": ["PERIOD_OPEN", "ON_HOLD"],
    }


async def test_a_preview_shows_the_writes_and_makes_none(
    desk: Desk, sandbox: StripeSandbox
) -> None:
    """Support sees a correction's effect on the bill before Stripe does."""
    customer = await desk.shop.customer()
    await desk.use(customer, "1000000")
    first = (await desk.ask(SUPPORT, PREVIEW, id=customer))["previewSync"]["plan"]
    await desk.flush(customer)
    await desk.use(customer, "1000000")
    await desk.use(customer, "4", sku="egress-gb")
    await sandbox.reset_counters()

    second = (await desk.ask(SUPPORT, PREVIEW, id=customer))["previewSync"]["plan"]

    assert (first["createsInvoice"], second["createsInvoice"]) == (True, False)
    assert second["linesUpdated"] == [
        {
            "sku": "machine-seconds",
            "quantity": "2000000",
            "wasQuantity": "1000000",
            "amount": {"amount": "62"},
        }
    ]
    assert second["linesAdded"] == [
        {"sku": "egress-gb", "quantity": "4", "wasQuantity": None, "amount": {"amount": "0.08"}}
    ]
    assert (second["stripeCalls"], (await sandbox.counters())["writes"]) == (2, 0)


async def test_a_correction_shows_its_effect_before_it_is_made(desk: Desk) -> None:
    """Support sees the new total, decides, and only then corrects."""
    customer = await desk.shop.customer()
    await desk.use(customer, "2000000")
    await desk.flush(customer)
    query = """mutation ($id: ID!, $sku: String!, $q: Decimal = "-1000000") { previewSync(input: {customerId: $id}, correction: {sku: $sku, quantity: $q}) {
      plan { total { formatted } stripeCalls linesAdded { sku quantity amount { amount } } } errors { code path } } }"""

    shown = (await desk.ask(SUPPORT, query, id=customer, sku="machine-seconds"))["previewSync"]
    unknown = (await desk.ask(SUPPORT, query, id=customer, sku="unheard-of"))["previewSync"]
    vague = (await desk.ask(SUPPORT, query, id=customer, sku="machine-seconds", q="a few"))[
        "previewSync"
    ]

    assert shown["plan"] == {
        "total": {"formatted": "USD 31.00"},
        "stripeCalls": 1,
        "linesAdded": [
            {"sku": "machine-seconds", "quantity": "-1000000", "amount": {"amount": "-31"}}
        ],
    }
    assert unknown["errors"] == [{"code": "UNKNOWN_SKU", "path": ["correction", "sku"]}]
    assert vague["errors"] == [{"code": "INVALID_INPUT", "path": ["correction", "quantity"]}]
    assert (await desk.ask(SUPPORT, AUDIT, id=customer))["customer"]["adjustments"]["nodes"] == []


async def test_drift_is_shown_and_repaired(desk: Desk, sandbox: StripeSandbox) -> None:
    """Somebody edited our line in the Dashboard: Support sees it, and sets it right."""
    customer = await desk.shop.customer()
    await desk.use(customer, "1000000")
    await desk.flush(customer)
    invoice = await draft_of(desk, customer)
    body = await desk.services.stripe.read(f"/v1/invoices/{invoice}", lane=desk.lane)
    line = body["lines"]["data"][0]["id"]
    await sandbox.dashboard("edit_line", invoice, line=line, quantity_decimal="5")
    await sandbox.dashboard("add_line", invoice, amount=700, description="a favour")

    drift = (await desk.ask(SUPPORT, DRIFT, id=customer))["customer"]["drift"]["lines"]
    blocked = await actions(desk, invoice)
    repaired = (await desk.ask(SUPPORT, REPAIR, id=customer, why="edited by mistake"))[
        "repairDrift"
    ]
    await desk.flush(customer)
    after = (await desk.ask(SUPPORT, DRIFT, id=customer))["customer"]["drift"]["lines"]

    quantity = {
        "sku": "machine-seconds",
        "lineId": line,
        "kind": "QUANTITY",
        "expected": "1000000",
        "found": "5",
    }
    assert {key: drift[0][key] for key in quantity} == quantity
    assert blocked["FINALIZE"] == ["PERIOD_OPEN", "DRIFT"]
    assert repaired["errors"] == []
    assert [(each["sku"], each["kind"]) for each in after] == [(None, "EXTRA")]
    # A person's line is no drift of ours.
    assert (await actions(desk, invoice))["FINALIZE"] == ["PERIOD_OPEN"]
    [entry] = await audited(desk, customer)
    assert entry["detail"]["before"]["machine-seconds"] == "QUANTITY"


async def test_drift_on_a_month_that_is_being_closed_is_repaired_too(
    desk: Desk, sandbox: StripeSandbox
) -> None:
    """The bill that goes out next is the one that matters most."""
    customer = CustomerId(await desk.shop.customer())
    last_month = Period.containing(datetime.now(UTC)).previous()
    late = (last_month.end - timedelta(minutes=1)).isoformat()
    await desk.use(customer, "1000000", occurred_at=late)
    await desk.flush(customer, last_month)
    snapshot = await desk.services.ledger.peek(customer, last_month)
    assert snapshot.invoice is not None
    [line] = snapshot.lines.values()
    await sandbox.dashboard("delete_line", snapshot.invoice, line=line.id)

    drift = (await desk.ask(SUPPORT, DRIFT, id=customer))["customer"]["drift"]["lines"]
    finalized = (await desk.ask(SUPPORT, FINALIZE, id=snapshot.invoice, why="now"))[
        "finalizeInvoice"
    ]
    await desk.ask(SUPPORT, REPAIR, id=customer, why="deleted by mistake")
    await desk.flush(customer, last_month)
    after = (await desk.ask(SUPPORT, DRIFT, id=customer))["customer"]["drift"]["lines"]

    assert [(each["kind"], each["expected"], each["found"]) for each in drift] == [
        ("MISSING", "1000000", None)
    ]
    assert finalized["errors"][0]["code"] == "DRIFT"
    assert after == []


async def ended_draft(desk: Desk) -> tuple[CustomerId, Period, str]:
    """A customer whose last month has been cut and waits for a release; its draft of USD 31.00."""
    customer, last_month, invoice = await last_months_draft(desk)
    await desk.ask(SUPPORT, HOLD, id=customer, why="disputed")
    await desk.services.ledger.close(customer, last_month)
    return customer, last_month, invoice


async def test_a_month_that_has_ended_is_corrected_until_its_bill_is_final(desk: Desk) -> None:
    """The bill is disputed, held and corrected: the customer gets it with the correction, and no other."""
    customer, last_month, invoice = await ended_draft(desk)
    asked = {"id": customer, "sku": "machine-seconds", "q": "-500000", "why": "outage"}
    asked["month"] = str(last_month)
    preview = """mutation ($id: ID!, $month: String) { previewSync(input: {customerId: $id}, correction: {
      sku: "machine-seconds", quantity: "-500000", month: $month}) { plan { total { formatted } } errors { code path } } }"""

    before = await actions(desk, invoice)
    planned = (await desk.ask(SUPPORT, preview, id=customer, month=str(last_month)))["previewSync"]
    made = (await desk.ask(SUPPORT, ADJUST, **asked, key="k1"))["adjustUsage"]
    await desk.ask(SUPPORT, RELEASE, id=customer, why="agreed")
    await desk.flush(customer, last_month)
    await desk.flush(customer)
    late = (await desk.ask(SUPPORT, ADJUST, **asked, key="k2"))["adjustUsage"]
    again = (await desk.ask(SUPPORT, ADJUST, **asked, key="k1"))["adjustUsage"]
    too_late = (await desk.ask(SUPPORT, preview, id=customer, month=str(last_month)))["previewSync"]

    assert before["ADJUST"] == []
    assert planned == {"plan": {"total": {"formatted": "USD 15.50"}}, "errors": []}
    assert (made["errors"], made["adjustment"]["period"]) == ([], str(last_month))
    body = await desk.services.stripe.read(f"/v1/invoices/{invoice}", lane=desk.lane)
    assert (body["status"] in {"open", "paid"}, body["total"]) == (True, 1550)
    current = await desk.services.ledger.peek(customer, last_month.next())
    assert current.totals == {}
    assert (await desk.services.syncs.get(made["sync"]["id"])).status is SyncStatus.SUCCEEDED  # type: ignore[union-attr]
    [refused] = late["errors"]
    assert (refused["code"], refused["path"]) == ("PERIOD_CLOSED", ["input", "month"])
    assert "credit note" in refused["message"]
    assert again["adjustment"] == made["adjustment"]
    assert too_late["errors"] == [{"code": "PERIOD_CLOSED", "path": ["correction", "month"]}]
    done = [each for each in await audited(desk, customer) if each["action"] == "adjustUsage"]
    assert done[-1]["detail"]["before"] == {"total": "USD 31.00"}
    assert done[-1]["detail"]["after"] | {"adjustment": ""} == {
        "total": "USD 15.50",
        "adjustment": "",
        "sku": "machine-seconds",
        "quantity": "-500000",
        "month": str(last_month),
    }


async def test_a_draft_that_somebody_finalized_by_hand_takes_no_correction(
    desk: Desk, sandbox: StripeSandbox
) -> None:
    """Under a hold no worker looks, and the correction would wait for another month's bill."""
    customer, last_month, invoice = await ended_draft(desk)
    await sandbox.dashboard("finalize", invoice)
    asked = {"id": customer, "sku": "machine-seconds", "q": "-500000", "why": "outage"}

    refused = (await desk.ask(SUPPORT, ADJUST, **asked, key="k1", month=str(last_month)))[
        "adjustUsage"
    ]

    assert [(each["code"], each["path"]) for each in refused["errors"]] == [
        ("PERIOD_CLOSED", ["input", "month"])
    ]
    assert invoice in refused["errors"][0]["message"]
    assert (await actions(desk, invoice))["ADJUST"] == ["NOT_DRAFT"]


async def test_adjust_is_offered_where_it_can_be_done(desk: Desk) -> None:
    """Not on a draft that somebody made by hand, and not while the bill may be becoming final."""
    customer, last_month, invoice = await ended_draft(desk)
    foreign = await desk.invoice(customer, 900)
    held = await desk.services.ledger.acquire(customer, last_month)
    assert held is not None
    await desk.services.ledger.in_doubt(held.lease)

    assert (await actions(desk, invoice))["ADJUST"] == ["SYNC_IN_PROGRESS"]
    assert (await actions(desk, foreign))["ADJUST"] == ["NOT_OURS"]


async def test_a_failed_sync_is_tried_again(desk: Desk, sandbox: StripeSandbox) -> None:
    """Once Stripe's objection is settled, Support does not wait for the hour to pass."""
    customer = await desk.shop.customer()
    await desk.use(customer, "1000000")
    await sandbox.fault("error_500_before", "POST /v1/invoices", times=100)
    await desk.flush(customer)
    last = await desk.services.syncs.of(CustomerId(customer))
    assert last is not None
    assert last.status is SyncStatus.RETRYING
    await sandbox.no_faults()

    retried = (await desk.ask(SUPPORT, RETRY, id=last.id))["retrySync"]
    await desk.flush(customer)

    assert retried["errors"] == []
    again = await desk.services.syncs.get(retried["sync"]["id"])
    assert again is not None
    assert again.status is SyncStatus.SUCCEEDED
    assert (await audited(desk, customer))[0]["action"] == "retrySync"
    absent = (await desk.ask(SUPPORT, RETRY, id="sync_x_1"))["retrySync"]
    assert absent["errors"][0]["path"] == ["input", "syncId"]


async def test_an_event_is_taken_up_again(desk: Desk) -> None:
    """What failed is replayed from here, whoever fixed the cause."""
    customer = await desk.shop.customer()
    notice = Notice("evt_1", "invoice.voided", "in_1", CustomerId(customer), invoice="in_1")
    await desk.services.inbox.receive([notice])
    [bundle] = await desk.services.inbox.claim(1)
    await desk.services.inbox.settle(bundle, EventStatus.FAILED, "broken")

    replayed = (await desk.ask(SUPPORT, REPLAY, id="evt_1"))["replayWebhookEvent"]
    absent = (await desk.ask(SUPPORT, REPLAY, id="evt_absent"))["replayWebhookEvent"]

    assert replayed == {"event": {"id": "evt_1", "status": "PENDING"}, "errors": []}
    assert absent["errors"] == [{"code": "NOT_FOUND", "path": ["input", "eventId"]}]
    [entry] = await audited(desk, customer)
    assert entry["detail"]["before"] == {"event": "evt_1", "status": "FAILED", "failure": "broken"}


async def test_a_draft_made_by_hand_is_finalized(desk: Desk) -> None:
    """It is not ours to compile, and Support need not leave the page for it."""
    customer = await desk.shop.customer()
    invoice = await desk.invoice(customer, 900)

    finalized = (await desk.ask(SUPPORT, FINALIZE, id=invoice, why="agreed by mail"))[
        "finalizeInvoice"
    ]
    again = (await desk.ask(SUPPORT, FINALIZE, id=invoice, why="twice"))["finalizeInvoice"]

    assert finalized["errors"] == []
    assert finalized["invoice"]["status"] in {"OPEN", "PAID"}
    assert again["errors"][0]["code"] == "NOT_DRAFT"
    refused, done = await audited(desk, customer)
    assert (done["reason"], done["detail"]["before"]["status"]) == ("agreed by mail", "draft")
    assert (refused["reason"], refused["detail"]["refusal"]) == ("twice", "NOT_DRAFT")


async def test_this_months_draft_is_not_finalized(desk: Desk) -> None:
    """Usage is still being counted on it."""
    customer = await desk.shop.customer()
    await desk.use(customer, "1000000")
    await desk.flush(customer)

    refused = (await desk.ask(SUPPORT, FINALIZE, id=await draft_of(desk, customer), why="now"))[
        "finalizeInvoice"
    ]

    assert (refused["invoice"], refused["errors"][0]["code"]) == (None, "INVALID_INPUT")
    assert refused["errors"][0]["path"] == ["input", "invoiceId"]
    [entry] = await audited(desk, customer)
    assert (entry["outcome"], entry["reason"]) == ("REFUSED", "now")


async def test_the_draft_of_a_month_that_has_ended_is_finalized(desk: Desk) -> None:
    """Support need not wait for the settle window: cut, checked, finalized, sealed."""
    customer, last_month, invoice = await last_months_draft(desk)
    before = await actions(desk, invoice)

    async with desk.working():
        done = (await desk.ask(SUPPORT, FINALIZE, id=invoice, why="asked for it early"))[
            "finalizeInvoice"
        ]

    assert (before["FINALIZE"], done["errors"]) == ([], [])
    assert done["invoice"]["status"] in {"OPEN", "PAID"}
    body = await desk.services.stripe.read(f"/v1/invoices/{invoice}", lane=desk.lane)
    assert (body["status"] in {"open", "paid"}, body["total"]) == (True, 3100)
    sealed = await desk.services.ledger.peek(customer, last_month)
    assert sealed.state is PeriodState.SEALED
    after = await actions(desk, invoice)
    assert after == {
        "SYNC": ["NOT_DRAFT"],
        "ADJUST": ["NOT_DRAFT"],
        "HOLD": [],
        "RELEASE": ["NOT_ON_HOLD"],
        "FINALIZE": ["NOT_DRAFT"],
    }
    [entry] = await audited(desk, customer)
    assert entry["detail"]["before"] == {"invoice": invoice, "status": "draft"}
    assert entry["detail"]["after"] == {"invoice": invoice, "status": body["status"]}


async def test_a_finalization_that_takes_longer_is_answered_with_what_stands(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No worker has come by yet: it is a draft still, and one will close it."""
    monkeypatch.setattr(finalize_invoice, "PATIENCE", 0.2)
    customer, last_month, invoice = await last_months_draft(desk)

    done = (await desk.ask(SUPPORT, FINALIZE, id=invoice, why="early"))["finalizeInvoice"]
    await desk.flush(customer, last_month)

    assert (done["invoice"]["status"], done["errors"]) == ("DRAFT", [])
    sealed = await desk.services.ledger.peek(customer, last_month)
    assert sealed.state is PeriodState.SEALED


async def test_an_act_whose_end_nobody_saw_stands_in_the_log(
    desk: Desk, sandbox: StripeSandbox
) -> None:
    """Whatever dies between the act and its end: that it was begun is known, and by whom."""
    customer = await desk.shop.customer()
    invoice = await desk.invoice(customer, 900)
    await sandbox.fault("answer_lost_after", "POST /v1/invoices/{invoice}/finalize")

    broken = (await desk.ask(SUPPORT, FINALIZE, id=invoice, why="agreed"))["finalizeInvoice"]

    assert [each["code"] for each in broken["errors"]] == ["STRIPE_UNAVAILABLE"]
    [entry] = await audited(desk, customer)
    assert (entry["outcome"], entry["by"], entry["reason"]) == (
        "UNKNOWN",
        SUPPORT.subject,
        "agreed",
    )


async def test_what_the_ledger_refuses_stands_in_the_log_as_refused(desk: Desk) -> None:
    """Nobody has to guess whether a correction that was tried is on the bill."""
    customer = await desk.shop.customer()
    await desk.services.ledger.register(CustomerId(customer), "eur")  # and the price is in dollars
    asked = {"id": customer, "sku": "egress-gb", "q": "1", "why": "typo", "key": "k1"}

    refused = (await desk.ask(SUPPORT, ADJUST, **asked))["adjustUsage"]

    assert [each["code"] for each in refused["errors"]] == ["INVALID_INPUT"]
    assert [each["outcome"] for each in await audited(desk, customer)] == ["REFUSED"]


async def test_a_late_retry_undoes_nobodys_decision(desk: Desk) -> None:
    """A release whose answer was lost is sent again after a colleague has held the bill anew."""
    customer = await desk.shop.customer()
    hold = HOLD.replace("reason: $why", 'reason: $why, idempotencyKey: "h1"')
    release = RELEASE.replace("reason: $why", 'reason: $why, idempotencyKey: "r1"')
    await desk.ask(SUPPORT, hold, id=customer, why="disputed")
    await desk.ask(SUPPORT, release, id=customer, why="settled")
    late = (await desk.ask(SUPPORT, hold, id=customer, why="disputed"))["holdBilling"]
    await desk.ask(SUPPORT, HOLD, id=customer, why="disputed again")

    again = (await desk.ask(SUPPORT, release, id=customer, why="settled"))["releaseBilling"]

    assert late == {"hold": None, "errors": []}
    assert again["customer"]["hold"] == {"reason": "disputed again"}
    assert len(await audited(desk, customer)) == 3


async def test_a_release_that_died_halfway_does_not_release_the_next_hold(desk: Desk) -> None:
    """The process went after the release and before its entry's end; sent again, it finds the hold that had waited."""
    customer = CustomerId(await desk.shop.customer())
    release = RELEASE.replace("reason: $why", 'reason: $why, idempotencyKey: "r1"')
    ledger, by = desk.services.ledger, SUPPORT.subject
    await desk.ask(SUPPORT, HOLD, id=customer, why="disputed")
    await ledger.hold_once(customer, "Invoice in_1 was voided.", "gateway", "void of in_1")
    before = {"hold": f"disputed ({by})"}
    intent = Intent(customer, by, "releaseBilling", "settled", before, key="r1")
    await desk.services.audit.begin(intent)
    await ledger.release_hold(customer, await ledger.held(customer))

    again = (await desk.ask(SUPPORT, release, id=customer, why="settled"))["releaseBilling"]

    waited = {"hold": "Invoice in_1 was voided. (gateway)"}
    [released, _] = await audited(desk, customer)
    assert again["customer"]["hold"] == {"reason": "Invoice in_1 was voided."}
    assert (released["detail"]["before"], released["detail"]["after"]) == (before, waited)


async def test_supports_own_syncs_stand_in_the_log(desk: Desk) -> None:
    """And a customer's click on the same button does not."""
    customer = await desk.shop.customer()
    sync = """mutation ($id: ID!) { syncBilling(input: {customerId: $id}) { sync { id } } }"""
    await desk.use(customer)
    await desk.ask(panel_of(customer), sync, id=customer)
    mine = (await desk.ask(SUPPORT, sync, id=customer))["syncBilling"]["sync"]["id"]

    [entry] = await audited(desk, customer)
    assert (entry["action"], entry["detail"]["after"]) == ("syncBilling", {"sync": mine})


async def test_events_that_never_arrived_are_looked_for(desk: Desk, redis: Redis) -> None:
    """After an outage of ours Support need not wait for the next turn, nor know the events by name."""
    sweep = (
        """mutation { sweepWebhookEvents(input: {reason: "we were down"}) { errors { code } } }"""
    )

    told = (await desk.ask(SUPPORT, sweep))["sweepWebhookEvents"]

    assert told == {"errors": []}
    [job] = await redis.zrange(QUEUE, 0, -1)
    assert b'"sweep"' in (await redis.get(b"arq:job:" + job) or b"")
    query = "query { auditLog { nodes { action reason outcome } } }"
    [entry] = (await desk.ask(SUPPORT, query))["auditLog"]["nodes"]
    assert entry == {"action": "sweepWebhookEvents", "reason": "we were down", "outcome": "DONE"}


async def test_the_replay_of_a_price_stands_in_nobodys_log(desk: Desk) -> None:
    """It touches every customer and belongs to none; who asked for it is known all the same."""
    await desk.services.inbox.receive([Notice("evt_1", "price.updated", "price_1")])
    query = "query { auditLog { nodes { by action reason outcome changes { what after } } } }"
    replay = REPLAY.replace("eventId: $id", 'eventId: $id, reason: "prices look old"')

    await desk.ask(SUPPORT, replay, id="evt_1")

    [entry] = (await desk.ask(SUPPORT, query))["auditLog"]["nodes"]
    assert (entry["by"], entry["action"], entry["reason"], entry["outcome"]) == (
        SUPPORT.subject,
        "replayWebhookEvent",
        "prices look old",
        "DONE",
    )
    assert {"what": "status", "after": "PENDING"} in entry["changes"]


async def test_an_ended_month_is_not_finalized_under_a_hold(desk: Desk) -> None:
    """Support's own button obeys the hold as everything else does, and names the cure."""
    customer, _, invoice = await last_months_draft(desk)
    await desk.ask(SUPPORT, HOLD, id=customer, why="disputed")

    refused = (await desk.ask(SUPPORT, FINALIZE, id=invoice, why="now"))["finalizeInvoice"]

    assert [each["code"] for each in refused["errors"]] == ["ON_HOLD"]
    assert "releaseBilling" in refused["errors"][0]["message"]


async def test_a_hold_wakes_a_worker_for_every_draft_that_could_become_final(
    desk: Desk, redis: Redis
) -> None:
    """A timer that a person set in Stripe is running; each press of the button sees to it."""
    customer = await desk.shop.customer()
    await desk.use(customer)

    for _ in range(2):
        await desk.ask(SUPPORT, HOLD, id=customer, why="disputed")

    assert await redis.zcard(QUEUE) == 2


async def test_what_stands_in_the_way_of_an_act_stands_in_the_log(desk: Desk) -> None:
    """Who tried to send a bill that is held or unfinished, and why, is asked when it has gone wrong."""
    customer = await desk.shop.customer()
    await desk.use(customer)
    await desk.flush(customer)
    sync = """mutation ($id: ID!) { syncBilling(input: {customerId: $id}) { sync { id } } }"""
    made = (await desk.ask(SUPPORT, sync, id=customer))["syncBilling"]["sync"]["id"]
    await desk.ask(SUPPORT, FINALIZE, id=await draft_of(desk, customer), why="send it")
    await desk.ask(SUPPORT, HOLD, id=customer, why="disputed")

    await desk.ask(SUPPORT, sync, id=customer)
    await desk.ask(SUPPORT, RETRY, id=made)
    await desk.ask(SUPPORT, REPAIR, id=customer, why="looks odd")
    await desk.ask(panel_of(customer), sync, id=customer)  # no act of Support's

    refused = [each for each in await audited(desk, customer) if each["outcome"] == "REFUSED"]
    assert [(each["action"], each["reason"], each["detail"]["refusal"]) for each in refused] == [
        ("repairDrift", "looks odd", "ON_HOLD"),
        ("retrySync", None, "ON_HOLD"),
        ("syncBilling", None, "ON_HOLD"),
        ("finalizeInvoice", "send it", "INVALID_INPUT"),
    ]
