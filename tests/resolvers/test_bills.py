"""The whole bill: rows from usage to what Stripe collects, and the reason for which it was not paid."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.stripe.records import InvoiceRecord
from resolvers.bills import Bill, BillRowKind, _bill
from sandbox.admin import Sandbox
from sandbox.settings import Settings as SandboxSettings
from tests.resolvers.conftest import SUPPORT, ApiHarness, panel_viewer
from tests.support.stripe_sandbox import StripeSandbox

ROWS = "bill { amountDue { amount } estimated rows { kind amount { amount } estimated } }"
PERIOD = """query ($id: ID!) { customer(id: $id) { currentPeriod { total { amount }
  estimate { amountDue { amount } estimated rows { kind amount { amount } estimated } } } } }"""
INVOICE = f"query ($id: ID!) {{ invoice(id: $id) {{ status amountDue {{ amount }} {ROWS} }} }}"
PAYMENT = """query ($id: ID!) { invoice(id: $id) { status collectionMethod finalizedAt paidAt isOverdue dueAt
  amountRemaining { amount } paymentAttempts nextPaymentAttemptAt
  paymentFailure { code declineCode message actionRequired } } }"""

# Amounts of our lines and of others' lines, in minor units.
AMOUNTS = st.lists(st.integers(0, 10**7), max_size=4)
CASES = st.fixed_dictionaries(
    {
        "currency": st.sampled_from(["usd", "eur", "jpy", "kwd"]),
        "ours": AMOUNTS,
        "others": AMOUNTS,
        "credit": st.integers(-(10**6), 0),
        "stranger": st.integers(-(10**6), 0),
        "coupon": st.sampled_from(
            [None, {"percent_off": 12.5}, {"percent_off": 100.0}, {"amount_off": 777}]
        ),
        "tax": st.sampled_from([None, "automatic", "exclusive", "inclusive"]),
        "exempt": st.sampled_from(["none", "exempt", "reverse"]),
        "balance": st.integers(-(10**6), 10**6),
        "terms": st.booleans(),
        "advance": st.booleans(),
    }
)


def _made(case: dict[str, Any]) -> tuple[Sandbox, str]:
    """A draft of the sandbox, made as *case* says."""
    sandbox = Sandbox(SandboxSettings(limits=False, latency=False))
    perform, currency = sandbox.perform, case["currency"]
    customer = perform("POST /v1/customers", {"address": {"country": "DE"}})["id"]
    own = {"currency": currency, "balance": case["balance"], "tax_exempt": case["exempt"]}
    sandbox.account.put("customers", sandbox.account.get("customers", customer) | own)
    params: dict[str, Any] = {"customer": customer, "currency": currency}
    params["metadata"] = {"gw_period": "2026-11"}
    if coupon := case["coupon"]:
        made = perform("POST /v1/coupons", coupon | {"currency": currency})
        params["discounts"] = [{"coupon": made["id"]}]
    if case["tax"] == "automatic":
        params["automatic_tax"] = {"enabled": True}
    elif case["tax"]:
        inclusive = case["tax"] == "inclusive"
        rate = {"display_name": "VAT", "percentage": 19.0, "inclusive": inclusive}
        params["default_tax_rates"] = [perform("POST /v1/tax_rates", rate)["id"]]
    if case["terms"]:
        params |= {"collection_method": "send_invoice", "days_until_due": 30}
    draft = perform("POST /v1/invoices", params)["id"]
    negative = case["tax"] != "automatic"  # Stripe refuses them beside automatic tax
    ours = case["ours"] + [case["credit"]] * negative
    others = case["others"] + [case["stranger"]] * negative
    lines = [{"amount": amount, "metadata": {"gw_line": f"a{n}"}} for n, amount in enumerate(ours)]
    lines += [{"amount": amount} for amount in others]
    if lines:
        perform("POST /v1/invoices/{invoice}/add_lines", {"lines": lines}, draft)
    return sandbox, draft


def _read(sandbox: Sandbox, invoice: str) -> tuple[InvoiceRecord, int]:
    """The invoice as the gateway reads it, and the sum of our lines."""
    body = sandbox.perform("GET /v1/invoices/{invoice}", {}, invoice)
    path = "GET /v1/invoices/{invoice}/lines"
    lines = sandbox.perform(path, {"limit": 100}, invoice)["data"]
    return InvoiceRecord.from_stripe(body), sum(
        line["amount"] for line in lines if "gw_line" in line["metadata"]
    )


@settings(max_examples=150, deadline=None)
@given(case=CASES, pending=st.integers(-(10**6), 10**7))
def test_rows_add_up_before_and_after_finalization(case: dict[str, Any], pending: int) -> None:
    """To the minor unit, whatever the invoice has; pending usage changes nothing that Stripe has said."""
    sandbox, draft = _made(case)
    record, own = _read(sandbox, draft)
    bill = _bill(record, own, 0)
    assert (bill.amount_due, bill.is_estimate) == (record.amount_due, False)
    assert _amount(bill, BillRowKind.USAGE) == own
    _check_carried(bill, record)

    estimated = _bill(record, own, pending)
    assert estimated.is_estimate == (pending != 0)
    assert estimated.amount_due >= 0
    assert _amount(estimated, BillRowKind.PENDING_USAGE) == pending

    sandbox.perform(
        "POST /v1/invoices/{invoice}/finalize", {"auto_advance": case["advance"]}, draft
    )
    final, own = _read(sandbox, draft)
    bill = _bill(final, own, 0)
    _check_carried(bill, final)
    assert (bill.amount_due, bill.is_estimate) == (final.amount_due, False)
    if final.status == "open" and final.amount_due > 1:
        note = {"invoice": draft, "amount": final.amount_due // 2}
        sandbox.perform("POST /v1/credit_notes", note)
        reduced, own = _read(sandbox, draft)
        bill = _bill(reduced, own, 0)
        assert bill.amount_due == reduced.amount_due
        assert _amount(bill, BillRowKind.CREDIT_NOTES) == -(final.amount_due // 2)


def _check_carried(bill: Bill, record: InvoiceRecord) -> None:
    """Nothing is left over but what Stripe moves to the balance: negative totals and tiny amounts."""
    carried = _amount(bill, BillRowKind.CARRIED_TO_BALANCE)
    if record.total < 0:
        assert carried == -record.total
    elif record.amount_due:
        assert carried == 0
    else:
        assert -50 < carried <= 0


def _amount(bill: Bill, kind: BillRowKind) -> int:
    return sum(row.amount for row in bill.rows if row.kind is kind)


async def _customer_in_germany(api: ApiHarness, sandbox: StripeSandbox) -> str:
    """A customer with a coupon of 10 % and credit of 5.00."""
    customer = await api.shop.customer()
    coupon = (await api.write_stripe("/v1/coupons", {"percent_off": 10}, 0))["id"]
    discount = {"id": "di_1", "source": {"type": "coupon", "coupon": coupon}}
    await sandbox.put_object("customers", id=customer, discount=discount, balance=-500)
    await sandbox.put_object("customers", id=customer, currency="usd")
    return customer


def _shown(bill: dict[str, Any]) -> dict[str, str]:
    return {row["kind"]: row["amount"]["amount"] for row in bill["rows"]}


async def test_estimate_is_what_stripe_asks_for_after_the_flush(
    api: ApiHarness, sandbox: StripeSandbox
) -> None:
    """Before the first flush the discount is unknown; on a draft it is estimated, then Stripe's."""
    customer = await _customer_in_germany(api, sandbox)
    viewer = panel_viewer(customer)
    await api.record_usage(customer, "1000000")
    first = (await api.query(viewer, PERIOD, id=customer))["customer"]["currentPeriod"]["estimate"]
    assert _shown(first) == {"PENDING_USAGE": "31", "BALANCE": "-5"}
    assert (first["amountDue"]["amount"], first["estimated"]) == ("26", True)

    await api.flush(customer)
    await api.record_usage(customer, "1000000")
    again = (await api.query(viewer, PERIOD, id=customer))["customer"]["currentPeriod"]["estimate"]
    assert _shown(again) == {
        "USAGE": "31",
        "PENDING_USAGE": "31",
        "DISCOUNT": "-6.2",
        "BALANCE": "-5",
    }
    assert [row["kind"] for row in again["rows"] if not row["estimated"]] == ["USAGE"]

    await api.flush(customer)
    done = (await api.query(viewer, PERIOD, id=customer))["customer"]["currentPeriod"]["estimate"]
    assert done["amountDue"]["amount"] == again["amountDue"]["amount"] == "50.8"
    assert done["estimated"] is False


async def test_line_of_a_person_is_a_row_of_its_own(api: ApiHarness) -> None:
    """So rows and draft agree, and the usage stays what the ledger has."""
    customer = await api.shop.customer()
    await api.record_usage(customer, "1000000")
    await api.flush(customer)
    [draft] = await api.services.stripe.list_all(
        "/v1/invoices", {"customer": customer}, lane=api.lane
    )
    fee = {"lines": [{"amount": 250, "description": "Setup"}]}
    await api.write_stripe(f"/v1/invoices/{draft['id']}/add_lines", fee, 1)

    shown = (await api.query(panel_viewer(customer), INVOICE, id=draft["id"]))["invoice"]
    assert _shown(shown["bill"]) == {"USAGE": "31", "OTHER_LINES": "2.5"}
    assert shown["bill"]["amountDue"] == shown["amountDue"] == {"amount": "33.5"}


async def test_bill_of_more_lines_than_stripe_embeds(api: ApiHarness) -> None:
    """Our lines are told from others' over all pages."""
    customer = await api.shop.customer()
    await api.record_usage(customer, "1000000")
    await api.flush(customer)
    [draft] = await api.services.stripe.list_all(
        "/v1/invoices", {"customer": customer}, lane=api.lane
    )
    fees = {"lines": [{"amount": 1, "description": "Fee"} for _ in range(120)]}
    await api.write_stripe(f"/v1/invoices/{draft['id']}/add_lines", fees, 1)

    shown = (await api.query(panel_viewer(customer), INVOICE, id=draft["id"]))["invoice"]
    assert _shown(shown["bill"]) == {"USAGE": "31", "OTHER_LINES": "1.2"}


@pytest.mark.parametrize(
    ("card", "decline", "message"),
    [
        ("pm_card_chargeCustomerFail", "insufficient_funds", "The card has insufficient funds."),
        ("pm_card_authenticationRequired", None, "The bank wants the payment to be confirmed."),
    ],
)
async def test_failed_payment_is_explained_to_the_customer(
    api: ApiHarness, card: str, decline: str | None, message: str
) -> None:
    """The reason in plain words, the next attempt, and what remains to be paid; gone once it is paid."""
    customer = await api.shop.customer()
    method = await api.write_stripe(f"/v1/payment_methods/{card}/attach", {"customer": customer}, 0)
    default = {"invoice_settings": {"default_payment_method": method["id"]}}
    await api.write_stripe(f"/v1/customers/{customer}", default, 0)
    invoice = await api.create_invoice(customer, 900)
    await api.write_stripe(f"/v1/invoices/{invoice}/finalize", {"auto_advance": True}, 0)

    viewer = panel_viewer(customer)
    shown = (await api.query(viewer, PAYMENT, id=invoice))["invoice"]
    assert (shown["status"], shown["paymentAttempts"]) == ("OPEN", 1)
    assert shown["amountRemaining"] == {"amount": "9"}
    assert shown["nextPaymentAttemptAt"] > shown["finalizedAt"]
    assert shown["paymentFailure"]["declineCode"] == decline
    assert shown["paymentFailure"]["message"].startswith(message)

    await api.write_stripe(f"/v1/invoices/{invoice}/pay", {"payment_method": "pm_card_visa"}, 0)
    await api.services.cache.invalidate(invoice, customer)
    paid = (await api.query(viewer, PAYMENT, id=invoice))["invoice"]
    assert (paid["status"], paid["paymentFailure"]) == ("PAID", None)
    assert paid["paidAt"] is not None
    assert paid["nextPaymentAttemptAt"] is None


async def test_reason_that_would_warn_a_thief_is_not_told(
    api: ApiHarness, sandbox: StripeSandbox
) -> None:
    """Stripe advises to show a stolen card as any other decline."""
    customer = await api.shop.customer()
    card = "/v1/payment_methods/pm_card_chargeCustomerFail/attach"
    method = await api.write_stripe(card, {"customer": customer}, 0)
    default = {"invoice_settings": {"default_payment_method": method["id"]}}
    await api.write_stripe(f"/v1/customers/{customer}", default, 0)
    invoice = await api.create_invoice(customer, 900)
    await api.write_stripe(f"/v1/invoices/{invoice}/finalize", {"auto_advance": True}, 0)
    [payment] = (
        await api.services.stripe.read("/v1/invoice_payments", {"invoice": invoice}, lane=api.lane)
    )["data"]
    error = {"type": "card_error", "code": "card_declined", "decline_code": "stolen_card"}
    intent = payment["payment"]["payment_intent"]
    await sandbox.put_object("payment_intents", id=intent, last_payment_error=error)

    shown = (await api.query(SUPPORT, PAYMENT, id=invoice))["invoice"]["paymentFailure"]
    assert shown["declineCode"] == "generic_decline"
    assert "stolen" not in shown["message"]


async def test_open_invoice_past_its_due_date_is_overdue(
    api: ApiHarness, sandbox: StripeSandbox
) -> None:
    """Terms of thirty days: due later, then overdue."""
    customer = await api.shop.customer()
    terms = {"customer": customer, "collection_method": "send_invoice", "days_until_due": 30}
    draft = (await api.write_stripe("/v1/invoices", terms, 0))["id"]
    line = {"lines": [{"amount": 900}]}
    await api.write_stripe(f"/v1/invoices/{draft}/add_lines", line, 0)
    await api.finalize_invoice(draft)

    viewer = panel_viewer(customer)
    shown = (await api.query(viewer, PAYMENT, id=draft))["invoice"]
    assert (shown["collectionMethod"], shown["isOverdue"]) == ("SEND_INVOICE", False)
    await sandbox.put_object("invoices", id=draft, due_date=1_700_000_000)
    await api.services.cache.invalidate(draft, customer)
    assert (await api.query(viewer, PAYMENT, id=draft))["invoice"]["isOverdue"] is True


UNPAID = """query ($first: Int, $after: String) { unpaidInvoices(first: $first, after: $after) {
  nodes { id customer { id } amountRemaining { amount } paymentFailure { declineCode } }
  pageInfo { hasNextPage endCursor } } }"""


async def test_support_lists_unpaid_invoices_of_all_customers(api: ApiHarness) -> None:
    """Drafts and paid ones are left out; pages go on; a customer may not ask."""
    unpaid = []
    for _ in range(3):
        customer = await api.shop.customer()
        invoice = await api.create_invoice(customer, 900)
        await api.finalize_invoice(invoice)
        await api.create_invoice(customer, 500)
        unpaid.append((invoice, customer))
    paid = await api.create_invoice(customer, 700)
    await api.finalize_invoice(paid)
    await api.write_stripe(f"/v1/invoices/{paid}/pay", {"paid_out_of_band": True}, 0)

    first = (await api.query(SUPPORT, UNPAID, first=2))["unpaidInvoices"]
    after = first["pageInfo"]["endCursor"]
    rest = (await api.query(SUPPORT, UNPAID, first=2, after=after))["unpaidInvoices"]
    shown = [(node["id"], node["customer"]["id"]) for node in first["nodes"] + rest["nodes"]]
    assert shown == unpaid[::-1]
    assert (first["pageInfo"]["hasNextPage"], rest["pageInfo"]["hasNextPage"]) == (True, False)
    assert await api.error_codes(panel_viewer(customer), UNPAID) == ["FORBIDDEN"]
