"""`adjustUsage`: adjustments of the current month and of months that have ended."""

from typing import Any

import pytest

from billing.ledger.syncs import SyncStatus
from tests.resolvers.conftest import SUPPORT, ApiHarness
from tests.support.mutations import (
    ADJUST,
    AUDIT,
    RELEASE,
    audit_entries,
    available_actions,
    closing_draft,
    draft_of,
)
from tests.support.stripe_sandbox import StripeSandbox


async def test_adjustment_reaches_draft_and_audit_log(api: ApiHarness) -> None:
    """An adjustment changes the draft's total, and the audit log shows who adjusted it and the totals before and after."""
    customer = await api.shop.customer()
    await api.record_usage(customer, "2000000")
    await api.flush(customer)

    adjusted = (
        await api.query(
            SUPPORT,
            ADJUST,
            id=customer,
            sku="machine-seconds",
            q="-1000000",
            why="outage",
            key="k1",
        )
    )["adjustUsage"]
    await api.flush(customer)

    assert adjusted["errors"] == []
    assert adjusted["adjustment"]["amount"] == {"formatted": "USD -31.00"}
    assert (adjusted["adjustment"]["by"], adjusted["sync"]["trigger"]) == (
        SUPPORT.subject,
        "SUPPORT",
    )
    body = await api.services.stripe.read(
        f"/v1/invoices/{await draft_of(api, customer)}", lane=api.lane
    )
    assert body["total"] == 3100
    [entry] = await audit_entries(api, customer)
    assert (entry["action"], entry["reason"], entry["by"]) == (
        "adjustUsage",
        "outage",
        SUPPORT.subject,
    )
    assert entry["detail"]["before"] == {"total": "USD 62.00"}
    assert entry["changes"][0] == {"what": "total", "before": "USD 62.00", "after": "USD 31.00"}


async def test_adjustment_is_applied_once_per_key(api: ApiHarness) -> None:
    """A retry after a timeout must not apply the adjustment twice."""
    customer = await api.shop.customer()
    variables = {"id": customer, "sku": "egress-gb", "q": "5", "why": "missed", "key": "k1"}

    first = (await api.query(SUPPORT, ADJUST, **variables))["adjustUsage"]
    second = (await api.query(SUPPORT, ADJUST, **variables))["adjustUsage"]
    other = (await api.query(SUPPORT, ADJUST, **{**variables, "q": "6"}))["adjustUsage"]

    assert first["adjustment"] == second["adjustment"]
    assert [(error["code"], error["path"]) for error in other["errors"]] == [
        ("IDEMPOTENCY_CONFLICT", ["input", "idempotencyKey"])
    ]
    assert len(await audit_entries(api, customer)) == 1
    shown = (await api.query(SUPPORT, AUDIT, id=customer))["customer"]["adjustments"]["nodes"]
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
async def test_invalid_adjustment_is_refused_with_its_path(
    api: ApiHarness, wrong: dict[str, Any], code: str, path: str
) -> None:
    """The error's path names the field, so a client can mark it."""
    customer = await api.shop.customer()
    variables = {
        "id": customer,
        "sku": "egress-gb",
        "q": "1",
        "why": "because",
        "key": "k1",
        **wrong,
    }

    refused = (await api.query(SUPPORT, ADJUST, **variables))["adjustUsage"]

    assert [(error["code"], error["path"]) for error in refused["errors"]] == [
        (code, ["input", path])
    ]
    assert "DONE" not in {entry["outcome"] for entry in await audit_entries(api, customer)}


async def test_ended_month_can_be_adjusted_until_finalized(api: ApiHarness) -> None:
    """An adjustment of a month on hold reaches that month's invoice; after finalization it is refused."""
    customer, last_month, invoice = await closing_draft(api)
    variables = {"id": customer, "sku": "machine-seconds", "q": "-500000", "why": "outage"}
    variables["month"] = str(last_month)
    preview = """mutation ($id: ID!, $month: String) { previewSync(input: {customerId: $id}, correction: {
      sku: "machine-seconds", quantity: "-500000", month: $month}) { plan { total { formatted } } errors { code path } } }"""

    before = await available_actions(api, invoice)
    planned = (await api.query(SUPPORT, preview, id=customer, month=str(last_month)))["previewSync"]
    adjusted = (await api.query(SUPPORT, ADJUST, **variables, key="k1"))["adjustUsage"]
    await api.query(SUPPORT, RELEASE, id=customer, why="agreed")
    await api.flush(customer, last_month)
    await api.flush(customer)
    late = (await api.query(SUPPORT, ADJUST, **variables, key="k2"))["adjustUsage"]
    again = (await api.query(SUPPORT, ADJUST, **variables, key="k1"))["adjustUsage"]
    too_late = (await api.query(SUPPORT, preview, id=customer, month=str(last_month)))[
        "previewSync"
    ]

    assert before["ADJUST"] == []
    assert planned == {"plan": {"total": {"formatted": "USD 15.50"}}, "errors": []}
    assert (adjusted["errors"], adjusted["adjustment"]["period"]) == ([], str(last_month))
    body = await api.services.stripe.read(f"/v1/invoices/{invoice}", lane=api.lane)
    assert (body["status"] in {"open", "paid"}, body["total"]) == (True, 1550)
    current = await api.services.ledger.periods.snapshot(customer, last_month.next())
    assert current.totals == {}
    sync = await api.services.ledger.syncs.get(adjusted["sync"]["id"])
    assert sync is not None
    assert sync.status is SyncStatus.SUCCEEDED
    [refused] = late["errors"]
    assert (refused["code"], refused["path"]) == ("PERIOD_CLOSED", ["input", "month"])
    assert "credit note" in refused["message"]
    assert again["adjustment"] == adjusted["adjustment"]
    assert too_late["errors"] == [{"code": "PERIOD_CLOSED", "path": ["correction", "month"]}]
    done = [
        entry for entry in await audit_entries(api, customer) if entry["action"] == "adjustUsage"
    ]
    assert done[-1]["detail"]["before"] == {"total": "USD 31.00"}
    assert done[-1]["detail"]["after"] | {"adjustment": ""} == {
        "total": "USD 15.50",
        "adjustment": "",
        "sku": "machine-seconds",
        "quantity": "-500000",
        "month": str(last_month),
    }


async def test_adjustment_of_invoice_finalized_by_hand_is_refused(
    api: ApiHarness, sandbox: StripeSandbox
) -> None:
    """Under a hold no worker reads the invoice, and the adjustment would move to another month."""
    customer, last_month, invoice = await closing_draft(api)
    await sandbox.dashboard("finalize", invoice)
    variables = {"id": customer, "sku": "machine-seconds", "q": "-500000", "why": "outage"}

    refused = (await api.query(SUPPORT, ADJUST, **variables, key="k1", month=str(last_month)))[
        "adjustUsage"
    ]

    assert [(error["code"], error["path"]) for error in refused["errors"]] == [
        ("PERIOD_CLOSED", ["input", "month"])
    ]
    assert invoice in refused["errors"][0]["message"]
    assert (await available_actions(api, invoice))["ADJUST"] == ["NOT_DRAFT"]


async def test_available_actions_offer_adjust_only_where_possible(api: ApiHarness) -> None:
    """ADJUST is blocked on a foreign draft, and while a finalization may be in progress."""
    customer, last_month, invoice = await closing_draft(api)
    foreign = await api.create_invoice(customer, 900)
    lease = await api.services.ledger.leases.acquire(customer, last_month)
    assert lease is not None
    await api.services.ledger.leases.mark_in_doubt(lease.lease)

    assert (await available_actions(api, invoice))["ADJUST"] == ["SYNC_IN_PROGRESS"]
    assert (await available_actions(api, foreign))["ADJUST"] == ["NOT_OURS"]
