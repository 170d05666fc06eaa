"""`finalizeInvoice`: drafts of ended months and foreign drafts."""

import pytest

from billing.invoicing.snapshot import PeriodState
from resolvers.mutations import finalize_invoice
from tests.resolvers.conftest import SUPPORT, ApiHarness
from tests.support.mutations import (
    FINALIZE,
    HOLD,
    audit_entries,
    available_actions,
    draft_of,
    last_month_draft,
)


async def test_foreign_draft_is_finalized(api: ApiHarness) -> None:
    """A draft that the gateway did not create is finalized directly in Stripe, once."""
    customer = await api.shop.customer()
    invoice = await api.create_invoice(customer, 900)

    finalized = (await api.query(SUPPORT, FINALIZE, id=invoice, why="agreed by mail"))[
        "finalizeInvoice"
    ]
    second = (await api.query(SUPPORT, FINALIZE, id=invoice, why="twice"))["finalizeInvoice"]

    assert finalized["errors"] == []
    assert finalized["invoice"]["status"] in {"OPEN", "PAID"}
    assert second["errors"][0]["code"] == "NOT_DRAFT"
    refused, done = await audit_entries(api, customer)
    assert (done["reason"], done["detail"]["before"]["status"]) == ("agreed by mail", "draft")
    assert (refused["reason"], refused["detail"]["refusal"]) == ("twice", "NOT_DRAFT")


async def test_draft_of_the_open_month_is_refused(api: ApiHarness) -> None:
    """Usage is still being counted on it; the refusal is in the audit log."""
    customer = await api.shop.customer()
    await api.record_usage(customer, "1000000")
    await api.flush(customer)

    refused = (await api.query(SUPPORT, FINALIZE, id=await draft_of(api, customer), why="now"))[
        "finalizeInvoice"
    ]

    assert (refused["invoice"], refused["errors"][0]["code"]) == (None, "INVALID_INPUT")
    assert refused["errors"][0]["path"] == ["input", "invoiceId"]
    [entry] = await audit_entries(api, customer)
    assert (entry["outcome"], entry["reason"]) == ("REFUSED", "now")


async def test_draft_of_an_ended_month_is_finalized(api: ApiHarness) -> None:
    """Support need not wait for the settle window: the period is closed, checked, finalized and sealed."""
    customer, last_month, invoice = await last_month_draft(api)
    before = await available_actions(api, invoice)

    async with api.running_worker():
        done = (await api.query(SUPPORT, FINALIZE, id=invoice, why="requested early"))[
            "finalizeInvoice"
        ]

    assert (before["FINALIZE"], done["errors"]) == ([], [])
    assert done["invoice"]["status"] in {"OPEN", "PAID"}
    body = await api.services.stripe.read(f"/v1/invoices/{invoice}", lane=api.lane)
    assert (body["status"] in {"open", "paid"}, body["total"]) == (True, 3100)
    sealed = await api.services.ledger.periods.snapshot(customer, last_month)
    assert sealed.state is PeriodState.SEALED
    after = await available_actions(api, invoice)
    assert after == {
        "SYNC": ["NOT_DRAFT"],
        "ADJUST": ["NOT_DRAFT"],
        "HOLD": [],
        "RELEASE": ["NOT_ON_HOLD"],
        "FINALIZE": ["NOT_DRAFT"],
    }
    [entry] = await audit_entries(api, customer)
    assert entry["detail"]["before"] == {"invoice": invoice, "status": "draft"}
    assert entry["detail"]["after"] == {"invoice": invoice, "status": body["status"]}


async def test_slow_finalization_returns_the_draft(
    api: ApiHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a worker the call returns the draft after its maximum wait, and a later flush finalizes it."""
    monkeypatch.setattr(finalize_invoice, "MAX_WAIT_SECONDS", 0.2)
    customer, last_month, invoice = await last_month_draft(api)

    done = (await api.query(SUPPORT, FINALIZE, id=invoice, why="early"))["finalizeInvoice"]
    await api.flush(customer, last_month)

    assert (done["invoice"]["status"], done["errors"]) == ("DRAFT", [])
    sealed = await api.services.ledger.periods.snapshot(customer, last_month)
    assert sealed.state is PeriodState.SEALED


async def test_finalization_under_a_hold_is_refused(api: ApiHarness) -> None:
    """The refusal names the mutation that releases the hold."""
    customer, _, invoice = await last_month_draft(api)
    await api.query(SUPPORT, HOLD, id=customer, why="disputed")

    refused = (await api.query(SUPPORT, FINALIZE, id=invoice, why="now"))["finalizeInvoice"]

    assert [error["code"] for error in refused["errors"]] == ["ON_HOLD"]
    assert "releaseBilling" in refused["errors"][0]["message"]


@pytest.mark.parametrize("months_ago", [1, 4])
async def test_draft_of_a_closed_month_is_refused(api: ApiHarness, months_ago: int) -> None:
    """A copy of a bill, metadata included: its month is sealed, or forgotten, and nothing will finalize it."""
    customer, last_month, _ = await last_month_draft(api)
    await api.services.ledger.periods.close(customer, last_month)
    await api.flush(customer, last_month)
    month = last_month
    for _ in range(months_ago - 1):
        month = month.previous()
    metadata = {"gw_period": str(month)}
    copy = (
        await api.write_stripe("/v1/invoices", {"customer": customer, "metadata": metadata}, 1)
    )["id"]

    blockers = (await available_actions(api, copy))["FINALIZE"]
    refused = (await api.query(SUPPORT, FINALIZE, id=copy, why="reissue"))["finalizeInvoice"]

    assert blockers == ["PERIOD_CLOSED"]
    assert [error["code"] for error in refused["errors"]] == ["PERIOD_CLOSED"]
    assert str(month) in refused["errors"][0]["message"]
    [entry] = await audit_entries(api, customer)
    assert entry["outcome"] == "REFUSED"


async def test_month_ends_by_the_ledgers_clock(
    api: ApiHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This machine's may be wrong, and the bill would become final in the middle of its month."""
    _, last_month, invoice = await last_month_draft(api)
    day_before = int(last_month.end.timestamp() - 86_400) * 1000
    monkeypatch.setattr(api.services.ledger._server, "_clock", lambda: day_before)

    assert (await available_actions(api, invoice))["FINALIZE"] == ["PERIOD_OPEN"]
