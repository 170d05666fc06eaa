"""Invoices move along Stripe's transitions only."""

from typing import Any

import pytest
import stripe
from stripe import StripeClient

from tests.support.stripe_sandbox import StripeSandbox

HOUR = 3600


async def create_open_invoice(client: StripeClient, amount: int, **customer: Any) -> Any:
    """Return a finalized invoice of *amount* for a new customer."""
    made = await client.v1.customers.create_async(customer)
    draft = await client.v1.invoices.create_async({"customer": made.id, "currency": "usd"})
    await client.v1.invoices.add_lines_async(draft.id, {"lines": [{"amount": amount}]})
    return await client.v1.invoices.finalize_invoice_async(draft.id)


async def event_types(client: StripeClient, invoice: str) -> list[str]:
    """Return the types of all events of an invoice, oldest first."""
    events = await client.v1.events.list_async({"type": "invoice.*", "limit": 100})
    return [e.type for e in reversed(events.data) if e.data.object["id"] == invoice]


async def test_finalization_assigns_number_and_freezes_the_invoice(client: StripeClient) -> None:
    """Only a finalized invoice has a number and a page."""
    bill = await create_open_invoice(client, 1000, name="Before")
    await client.v1.customers.update_async(bill.customer, {"name": "After"})
    current = await client.v1.invoices.retrieve_async(bill.id)

    assert (current.status, current.amount_due, current.amount_remaining) == ("open", 1000, 1000)
    assert current.number.endswith("-0001")
    assert current.customer_name == "Before"
    assert current.hosted_invoice_url is not None
    created, *_, last = await event_types(client, bill.id)
    assert (created, last) == ("invoice.created", "invoice.finalized")


async def test_every_transition_emits_its_event(client: StripeClient) -> None:
    """Open → uncollectible → paid, open → void, open → paid."""
    invoices = client.v1.invoices
    doubtful, unwanted, good = [await create_open_invoice(client, 500) for _ in range(3)]
    doubtful = await invoices.mark_uncollectible_async(doubtful.id)
    assert doubtful.status_details.uncollectible.reason == "user_forgiven"
    paid = await invoices.pay_async(doubtful.id, {"payment_method": "pm_card_visa"})
    void = await invoices.void_invoice_async(unwanted.id)
    cash = await invoices.pay_async(good.id, {"paid_out_of_band": True})

    assert (paid.status, void.status, cash.status) == ("paid", "void", "paid")
    assert (paid.amount_paid, cash.amount_paid_off_stripe) == (500, 500)
    assert (await event_types(client, doubtful.id))[-5:] == [
        "invoice.updated",
        "invoice.marked_uncollectible",
        "invoice.updated",
        "invoice.paid",
        "invoice.payment_succeeded",
    ]
    assert (await event_types(client, unwanted.id))[-1] == "invoice.voided"
    assert "invoice.payment_succeeded" not in await event_types(client, good.id)


@pytest.mark.parametrize(
    ("state", "action"),
    [
        ("draft", "pay"),
        ("draft", "void_invoice"),
        ("draft", "mark_uncollectible"),
        ("paid", "void_invoice"),
        ("paid", "pay"),
        ("paid", "finalize_invoice"),
        ("void", "pay"),
        ("void", "finalize_invoice"),
        ("void", "delete"),
        ("open", "delete"),
        ("open", "finalize_invoice"),
    ],
)
async def test_other_transitions_are_rejected(
    client: StripeClient, draft: Any, state: str, action: str
) -> None:
    """A forbidden transition is a 400 and changes nothing."""
    invoices = client.v1.invoices
    if state != "draft":
        await invoices.add_lines_async(draft.id, {"lines": [{"amount": 100}]})
        await invoices.finalize_invoice_async(draft.id)
    if state == "paid":
        await invoices.pay_async(draft.id, {"paid_out_of_band": True})
    if state == "void":
        await invoices.void_invoice_async(draft.id)
    with pytest.raises(stripe.InvalidRequestError):
        await getattr(invoices, f"{action}_async")(draft.id)

    assert (await invoices.retrieve_async(draft.id)).status == state


async def test_declined_card_records_the_attempt(client: StripeClient) -> None:
    """The 402 rolls nothing back."""
    bill = await create_open_invoice(client, 900)
    method = await client.v1.payment_methods.attach_async(
        "pm_card_chargeCustomerFail", {"customer": bill.customer}
    )
    with pytest.raises(stripe.CardError):
        await client.v1.invoices.pay_async(bill.id, {"payment_method": method.id})
    current = await client.v1.invoices.retrieve_async(bill.id)

    assert (current.status, current.attempted, current.attempt_count) == ("open", True, 1)
    assert (await event_types(client, bill.id))[-1] == "invoice.payment_failed"


@pytest.mark.parametrize(
    ("amount", "balance", "status", "due", "ending"),
    [
        (1000, 0, "open", 1000, 0),
        (1000, -300, "open", 700, 0),
        (1000, -1500, "paid", 0, -500),
        (1000, 200, "open", 1200, 0),
        (30, 0, "paid", 0, 30),
        (1000, -980, "paid", 0, 20),
        (-400, 0, "paid", 0, -400),
        (0, 0, "paid", 0, 0),
    ],
)
async def test_finalization_applies_the_customer_balance(
    client: StripeClient, amount: int, balance: int, status: str, due: int, ending: int
) -> None:
    """Credit is used, debt is added, an amount too small to charge is carried over."""
    bill = await create_open_invoice(client, amount, balance=balance)
    customer = await client.v1.customers.retrieve_async(bill.customer)

    assert (bill.status, bill.amount_due, bill.ending_balance) == (status, due, ending)
    assert customer.balance == ending
    entries = await client.v1.customers.balance_transactions.list_async(bill.customer)
    assert sum(entry.amount for entry in entries.data) == ending


async def test_void_returns_applied_credit(client: StripeClient) -> None:
    """The customer's balance is as before."""
    bill = await create_open_invoice(client, 1000, balance=-300)
    await client.v1.invoices.void_invoice_async(bill.id)

    assert (await client.v1.customers.retrieve_async(bill.customer)).balance == -300


async def test_deleted_draft_is_not_found(client: StripeClient, draft: Any) -> None:
    """Its event remains."""
    deleted = await client.v1.invoices.delete_async(draft.id)

    assert deleted.deleted
    with pytest.raises(stripe.InvalidRequestError) as raised:
        await client.v1.invoices.retrieve_async(draft.id)
    assert (raised.value.http_status, raised.value.code) == (404, "resource_missing")
    assert (await event_types(client, draft.id))[-1] == "invoice.deleted"


async def test_credit_notes_reduce_amount_due_or_credit_the_balance(client: StripeClient) -> None:
    """An open invoice is paid at 0; on a paid one they become credit."""
    bill = await create_open_invoice(client, 1000)
    await client.v1.credit_notes.create_async({"invoice": bill.id, "amount": 400})
    assert (await client.v1.invoices.retrieve_async(bill.id)).amount_remaining == 600
    await client.v1.credit_notes.create_async({"invoice": bill.id, "amount": 600})
    assert (await client.v1.invoices.retrieve_async(bill.id)).status == "paid"

    paid = await create_open_invoice(client, 1000)
    await client.v1.invoices.pay_async(paid.id, {"payment_method": "pm_card_visa"})
    await client.v1.credit_notes.create_async({"invoice": paid.id, "amount": 250})
    with pytest.raises(stripe.InvalidRequestError):
        await client.v1.credit_notes.create_async({"invoice": paid.id, "amount": 751})
    assert (await client.v1.customers.retrieve_async(paid.customer)).balance == -250


async def test_dashboard_changes_have_no_idempotency_key(
    sandbox: StripeSandbox, client: StripeClient, draft: Any
) -> None:
    """The gateway tells others' changes from its own by it."""
    own = await client.v1.invoices.add_lines_async(
        draft.id, {"lines": [{"amount": 100}]}, {"idempotency_key": "gw1:x"}
    )
    line = own.lines.data[0].id
    await sandbox.dashboard("edit_line", draft.id, line=line, amount=120, description="by hand")
    await sandbox.dashboard("add_line", draft.id, amount=5)
    await sandbox.dashboard("delete_line", draft.id, line=line)
    await sandbox.dashboard("update", draft.id, description="touched")
    current = await sandbox.dashboard("finalize", draft.id)
    events = await client.v1.events.list_async({"type": "invoice.updated"})

    assert (current["total"], current["description"]) == (5, "touched")
    keys = [event.request.idempotency_key for event in reversed(events.data)]
    assert keys[0] == "gw1:x"
    assert set(keys[1:]) == {None}


async def test_update_event_has_previous_attributes(client: StripeClient, draft: Any) -> None:
    """They hold the changed fields and no others."""
    await client.v1.invoices.update_async(draft.id, {"description": "March"})
    event = (await client.v1.events.list_async({"type": "invoice.updated"})).data[0]

    assert event.data.previous_attributes.to_dict() == {"description": None}
    assert event.data.object["description"] == "March"


async def test_preview_stores_nothing(client: StripeClient, draft: Any) -> None:
    """Its id has its own prefix, and it emits no events."""
    await client.v1.invoice_items.create_async({"customer": draft.customer, "amount": 7})
    before = len((await client.v1.events.list_async()).data)
    items: Any = [{"unit_amount_decimal": "0.5", "quantity_decimal": "5"}]
    shown = await client.v1.invoices.create_preview_async(
        {"customer": draft.customer, "invoice_items": items}
    )

    assert shown.total == 7 + 3
    assert shown.id.startswith("upcoming_in_")
    assert len((await client.v1.events.list_async()).data) == before
    pending = await client.v1.invoice_items.list_async({"pending": True})
    assert len(pending.data) == 1


async def test_finalized_revision_takes_the_place_of_its_original(client: StripeClient) -> None:
    """It is a clone that can be edited; the original is void once it is final, and names it."""
    invoices = client.v1.invoices
    bill = await create_open_invoice(client, 1000)
    wanted: Any = {"from_invoice": {"action": "revision", "invoice": bill.id}}
    revision = await invoices.create_async(wanted)
    assert (revision.status, revision.customer, revision.total) == ("draft", bill.customer, 1000)
    assert (await invoices.retrieve_async(bill.id)).latest_revision is None
    line = revision.lines.data[0].id
    await invoices.update_lines_async(revision.id, {"lines": [{"id": line, "amount": 700}]})
    revision = await invoices.finalize_invoice_async(revision.id)

    original = await invoices.retrieve_async(bill.id)
    assert (original.status, original.total, original.latest_revision) == (
        "void",
        1000,
        revision.id,
    )
    assert (revision.status, revision.total) == ("open", 700)
    assert revision.from_invoice is not None
    assert revision.from_invoice.invoice == bill.id
    second: Any = {"from_invoice": {"action": "revision", "invoice": revision.id}}
    last = await invoices.finalize_invoice_async((await invoices.create_async(second)).id)
    assert (await invoices.retrieve_async(bill.id)).latest_revision == last.id


async def test_paid_or_void_invoice_cannot_be_revised(client: StripeClient) -> None:
    """Neither when the revision is begun nor when it is finalized."""
    invoices = client.v1.invoices
    bill = await create_open_invoice(client, 1000)
    wanted: Any = {"from_invoice": {"action": "revision", "invoice": bill.id}}
    revision = await invoices.create_async(wanted)
    await invoices.void_invoice_async(bill.id)

    with pytest.raises(stripe.InvalidRequestError):
        await invoices.create_async(wanted)
    with pytest.raises(stripe.InvalidRequestError):
        await invoices.finalize_invoice_async(revision.id)
