"""Webhook deliveries: signed, retried, unordered, sometimes duplicated, and faulty on request."""

from typing import Any

import stripe
from stripe import StripeClient

from tests.sandbox.conftest import SECRET
from tests.support.receiver import Received, Receiver, receive_webhooks
from tests.support.stripe_sandbox import StripeSandbox
from tests.support.wait import wait_for_value


def has_valid_signature(received: Received) -> bool:
    """Return True if stripe-python accepts the signature."""
    try:
        stripe.WebhookSignature.verify_header(
            received.body.decode(), received.headers["stripe-signature"], SECRET, 300
        )
    except stripe.SignatureVerificationError:
        return False
    return True


async def test_delivery_is_signed_and_equals_the_event(
    sandbox: StripeSandbox, client: StripeClient, receiver: Receiver
) -> None:
    """The payload is the event that the API returns, and the secret signed its bytes."""
    customer = await client.v1.customers.create_async({"name": "A"}, {"idempotency_key": "k"})
    report = await sandbox.drain_webhooks()

    assert report["settled"]
    (received,) = receiver.received
    assert has_valid_signature(received)
    event = received.event
    assert (event["type"], event["data"]["object"]["id"]) == ("customer.created", customer.id)
    assert event["request"]["idempotency_key"] == "k"
    assert event["api_version"] == stripe.api_version
    listed = await client.v1.events.retrieve_async(event["id"])
    assert listed.to_dict() | {"pending_webhooks": 1} == event | {"pending_webhooks": 1}


async def test_failed_delivery_is_retried_with_a_new_signature(
    sandbox: StripeSandbox, client: StripeClient, receiver: Receiver
) -> None:
    """Redirects and errors are not acknowledgements; the body stays the same."""
    answers = iter([500, 302, 200])
    receiver.answer = lambda _: next(answers)
    await client.v1.customers.create_async({})
    await wait_for_value(lambda: _count(receiver), 3)
    await sandbox.drain_webhooks()

    bodies = {received.event["id"] for received in receiver.received}
    assert len(bodies) == 1
    assert all(has_valid_signature(received) for received in receiver.received)
    assert (await sandbox.webhooks())["pending"] == []


async def _count(receiver: Receiver) -> int:
    return len(receiver.received)


async def test_sandbox_mode_gives_up_after_three_attempts(
    sandbox: StripeSandbox, client: StripeClient, receiver: Receiver
) -> None:
    """Failed deliveries are found with delivery_success=false."""
    await sandbox.settings(mode="sandbox")
    receiver.answer = lambda _: 500
    await client.v1.customers.create_async({})
    for _ in range(3):
        await sandbox.drain_webhooks()
        await sandbox.advance(24 * 3600)
    await sandbox.drain_webhooks()

    assert len(receiver.received) == 3
    report = await sandbox.webhooks()
    assert (len(report["pending"]), len(report["failed"])) == (0, 1)
    missed = (await client.v1.events.list_async({"delivery_success": False})).data
    assert [event.type for event in missed] == ["customer.created"]


async def test_endpoints_receive_selected_events_while_enabled(
    sandbox: StripeSandbox, client: StripeClient
) -> None:
    """Each endpoint has its own secret and selection."""
    async with receive_webhooks() as one, receive_webhooks() as other:
        await sandbox.register_endpoint(one.url, SECRET, ["customer.created"])
        second = await sandbox.register_endpoint(
            other.url, "whsec_other_secret", ["customer.updated"]
        )
        customer = await client.v1.customers.create_async({})
        await client.v1.customers.update_async(customer.id, {"name": "B"})
        await sandbox.drain_webhooks()
        await client.v1.webhook_endpoints.update_async(second, {"disabled": True})
        await client.v1.customers.update_async(customer.id, {"name": "C"})
        await sandbox.drain_webhooks()

        assert (one.types, other.types) == (["customer.created"], ["customer.updated"])
        assert has_valid_signature(one.received[0])
        assert not has_valid_signature(other.received[0])


async def test_deliveries_are_unordered(
    sandbox: StripeSandbox, client: StripeClient, receiver: Receiver
) -> None:
    """Events of the same second arrive in any order."""
    await sandbox.settings(shuffle=0.5)
    for n in range(12):
        await client.v1.customers.create_async({"name": str(n)})
    await sandbox.drain_webhooks()

    names = [received.event["data"]["object"]["name"] for received in receiver.received]
    assert sorted(names, key=int) == [str(n) for n in range(12)] != names


async def test_deliveries_are_duplicated_at_random_and_by_fault(
    sandbox: StripeSandbox, client: StripeClient, receiver: Receiver
) -> None:
    """Both by the setting and by a fault."""
    await sandbox.settings(duplicates=1)
    await client.v1.customers.create_async({})
    await sandbox.drain_webhooks()
    await sandbox.settings(duplicates=0)
    await sandbox.fault("webhook_duplicate", "customer.created")
    await client.v1.customers.create_async({})
    await client.v1.customers.create_async({})
    await sandbox.drain_webhooks()

    assert len(receiver.received) == 5
    assert len({received.event["id"] for received in receiver.received}) == 3


async def test_dropped_webhook_is_listed_as_undelivered(
    sandbox: StripeSandbox, client: StripeClient, receiver: Receiver
) -> None:
    """Recovery polls the list of events."""
    await sandbox.fault("webhook_drop", "customer.created")
    await client.v1.customers.create_async({})
    await sandbox.drain_webhooks()

    assert receiver.received == []
    assert len((await client.v1.events.list_async({"delivery_success": False})).data) == 1


async def test_delayed_webhook_arrives_when_the_clock_advances(
    sandbox: StripeSandbox, client: StripeClient, receiver: Receiver
) -> None:
    """An hour's delay costs no hour of waiting."""
    await sandbox.fault("webhook_delay", "customer.created", seconds=3600)
    await client.v1.customers.create_async({})
    await sandbox.drain_webhooks()
    assert receiver.received == []
    await sandbox.advance(3601)
    await sandbox.drain_webhooks()
    assert receiver.types == ["customer.created"]


async def test_reordered_group_arrives_in_reverse(
    sandbox: StripeSandbox, client: StripeClient, receiver: Receiver
) -> None:
    """The oldest event comes last."""
    await sandbox.settings(shuffle=0)
    await sandbox.fault("webhook_reorder", "customer.created", times=3, gap=0.2)
    for n in range(3):
        await client.v1.customers.create_async({"name": str(n)})
    await wait_for_value(lambda: _count(receiver), 3)

    names = [received.event["data"]["object"]["name"] for received in receiver.received]
    assert names == ["2", "1", "0"]


async def test_forged_webhook_precedes_the_real_one(
    sandbox: StripeSandbox, client: StripeClient, receiver: Receiver
) -> None:
    """The receiver's status for it is reported, so that a test can demand a rejection."""
    receiver.answer = lambda received: 200 if has_valid_signature(received) else 400
    await sandbox.fault("webhook_forge", "customer.created")
    await client.v1.customers.create_async({})
    await sandbox.drain_webhooks()

    assert [has_valid_signature(received) for received in receiver.received] == [False, True]
    assert (await sandbox.webhooks())["forged_answers"][-1:] == [400]


async def test_old_api_version_gets_the_old_shape(
    sandbox: StripeSandbox, client: StripeClient, receiver: Receiver, draft: Any
) -> None:
    """By fault, or by the version with which the endpoint was registered."""
    async with receive_webhooks() as old:
        events: Any = ["invoice.updated"]
        await client.v1.webhook_endpoints.create_async(
            {"url": old.url, "enabled_events": events, "api_version": "2024-06-20"}
        )
        await sandbox.fault("old_api_version", "invoice.updated", object=draft.id)
        line: Any = {"lines": [{"amount": 7}]}
        await client.v1.invoices.add_lines_async(draft.id, line)
        await sandbox.drain_webhooks()
        event = old.received[0].event

        assert event["api_version"] in ("2024-06-20", "2022-11-15")
        shown = event["data"]["object"]
        assert (shown["paid"], shown["payment_intent"]) == (False, None)
        assert "parent" not in shown["lines"]["data"][0]
        assert shown["lines"]["data"][0]["invoice_item"].startswith("ii_")


async def test_pending_webhooks_counts_unacknowledged_endpoints(
    sandbox: StripeSandbox, client: StripeClient, receiver: Receiver
) -> None:
    """An acknowledgement lowers the event's count."""
    receiver.answer = lambda _: 500
    await sandbox.settings(retry_scale=1)
    await client.v1.customers.create_async({})
    await sandbox.drain_webhooks()
    event = (await client.v1.events.list_async()).data[0]
    assert event.pending_webhooks == 1
    receiver.answer = lambda _: 200
    await sandbox.advance(61)
    await sandbox.drain_webhooks()
    assert (await client.v1.events.retrieve_async(event.id)).pending_webhooks == 0
