"""The audit log of Support's actions: refused ones and ones with an unknown outcome."""

from billing.usage import CustomerId
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
