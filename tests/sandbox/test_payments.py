"""Attempts to charge: declines, retries by the clock, authentication, delinquent customers, overdue bills."""

from typing import Any

import pytest
import stripe
from stripe import StripeClient

from tests.sandbox.test_invoices import event_types
from tests.support.stripe_sandbox import StripeSandbox

DAY = 86_400


async def automatic_bill(client: StripeClient, card: str | None) -> Any:
    """An invoice of 9.00, finalized to be collected automatically from *card*."""
    owner = await client.v1.customers.create_async({"payment_method": card} if card else {})
    if card:
        [method] = (await client.v1.customers.payment_methods.list_async(owner.id)).data
        settings: Any = {"invoice_settings": {"default_payment_method": method.id}}
        await client.v1.customers.update_async(owner.id, settings)
    draft = await client.v1.invoices.create_async({"customer": owner.id})
    await client.v1.invoices.add_lines_async(draft.id, {"lines": [{"amount": 900}]})
    return await client.v1.invoices.finalize_invoice_async(draft.id, {"auto_advance": True})


async def intent_of(client: StripeClient, invoice: str) -> Any:
    """The payment intent of an invoice, by its payment."""
    expand: Any = {"invoice": invoice, "expand": ["data.payment.payment_intent"]}
    [payment] = (await client.v1.invoice_payments.list_async(expand)).data
    return payment.payment.payment_intent


async def test_declined_charge_shows_its_reason_and_the_next_attempt(
    sandbox: StripeSandbox, client: StripeClient
) -> None:
    """An automatic failure makes the customer delinquent; the clock tries again, three times."""
    bill = await automatic_bill(client, "pm_card_chargeCustomerFail")
    intent = await intent_of(client, bill.id)

    assert (bill.status, bill.attempt_count) == ("open", 1)
    assert bill.next_payment_attempt == pytest.approx(await sandbox.now() + 3 * DAY, abs=5)
    assert (intent.status, intent.last_payment_error.code) == (
        "requires_payment_method",
        "card_declined",
    )
    assert intent.last_payment_error.decline_code == "insufficient_funds"
    assert (await client.v1.customers.retrieve_async(bill.customer)).delinquent
    for days in (3, 5, 7):
        await sandbox.advance(days * DAY + 1)
    tried = await client.v1.invoices.retrieve_async(bill.id)
    assert (tried.attempt_count, tried.next_payment_attempt, tried.status) == (4, None, "open")


async def test_payment_clears_the_delinquency_and_the_error(client: StripeClient) -> None:
    """The intent that failed is the one that succeeds."""
    bill = await automatic_bill(client, "pm_card_chargeCustomerFail")
    paid = await client.v1.invoices.pay_async(bill.id, {"payment_method": "pm_card_visa"})
    intent = await intent_of(client, bill.id)

    assert (paid.status, paid.next_payment_attempt) == ("paid", None)
    assert (intent.status, intent.last_payment_error) == ("succeeded", None)
    assert not (await client.v1.customers.retrieve_async(bill.customer)).delinquent


async def test_card_that_needs_authentication_asks_for_the_customer(client: StripeClient) -> None:
    """The invoice stays open until they act on its page."""
    bill = await automatic_bill(client, "pm_card_authenticationRequired")

    assert (bill.status, (await intent_of(client, bill.id)).status) == ("open", "requires_action")
    assert "invoice.payment_action_required" in await event_types(client, bill.id)
    with pytest.raises(stripe.CardError) as caught:
        await client.v1.invoices.pay_async(bill.id)
    assert caught.value.code == "authentication_required"


async def test_bill_without_a_card_fails_at_once(client: StripeClient) -> None:
    """There is nothing to retry with, but Stripe keeps trying."""
    bill = await automatic_bill(client, None)

    assert bill.attempt_count == 1
    assert (await intent_of(client, bill.id)).last_payment_error.code == "missing"


async def test_bill_past_its_due_date_is_overdue_once(
    sandbox: StripeSandbox, client: StripeClient
) -> None:
    """Terms of a day: afterwards one event, and a delinquent customer until somebody writes it off."""
    owner = await client.v1.customers.create_async()
    draft = await client.v1.invoices.create_async(
        {"customer": owner.id, "collection_method": "send_invoice", "days_until_due": 1}
    )
    await client.v1.invoices.add_lines_async(draft.id, {"lines": [{"amount": 900}]})
    await client.v1.invoices.finalize_invoice_async(draft.id)
    for _ in range(3):
        await sandbox.advance(DAY)

    assert (await event_types(client, draft.id)).count("invoice.overdue") == 1
    assert (await client.v1.customers.retrieve_async(owner.id)).delinquent
    await client.v1.invoices.mark_uncollectible_async(draft.id)
    assert not (await client.v1.customers.retrieve_async(owner.id)).delinquent
