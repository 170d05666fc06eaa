"""`billingChanged`: events of one customer's billing."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from strawberry.types import ExecutionResult

from billing.change_feed import Change, ChangeReason
from billing.stripe import count_calls
from billing.usage import CustomerId
from tests.resolvers.conftest import OTHER_CUSTOMER, SUPPORT, ApiHarness, panel_viewer
from tests.support.stripe_sandbox import StripeSandbox
from workers.flush.flush import MAX_CRASHES

FOLLOW = """subscription ($id: ID!) { billingChanged(customerId: $id) {
  reason at customer { id name currentPeriod { total { amount } } } sync { id status } invoice { id } } }"""
HOLD = """mutation ($id: ID!) { holdBilling(input: {customerId: $id, reason: "why"}) { hold { since } } }"""
SYNC = """mutation ($id: ID!) { syncBilling(input: {customerId: $id}) { sync { id } } }"""
TIMEOUT_SECONDS = 10


async def test_each_event_shows_the_current_state(api: ApiHarness) -> None:
    """Data loaded for an earlier event is not shown again."""
    customer = await api.shop.customer()
    events = await api.subscribe(panel_viewer(customer), FOLLOW, id=customer)

    async with asyncio.timeout(TIMEOUT_SECONDS):
        first = asyncio.create_task(anext(events))
        await api.wait_for_subscriber(customer)
        await api.record_usage(customer, "1000000")
        usage_event = (await first).data
        pending = asyncio.create_task(anext(events))
        await api.query(SUPPORT, HOLD, id=customer)
        hold_event = (await pending).data
        while hold_event is not None and hold_event["billingChanged"]["reason"] == "REFRESH":
            hold_event = (await anext(events)).data
    await events.aclose()

    assert usage_event is not None
    assert hold_event is not None
    assert usage_event["billingChanged"]["reason"] == "USAGE"
    assert usage_event["billingChanged"]["customer"]["currentPeriod"]["total"]["amount"] == "31"
    assert hold_event["billingChanged"]["reason"] == "SUPPORT"
    assert usage_event["billingChanged"]["at"] < hold_event["billingChanged"]["at"]


async def test_event_carries_its_sync_and_invoice(api: ApiHarness) -> None:
    """A panel that follows a sync needs no second query."""
    customer = await api.shop.customer()
    invoice = await api.create_invoice(customer, 100)
    await api.record_usage(customer, "1000000")
    await api.flush(customer)
    events = await api.subscribe(panel_viewer(customer), FOLLOW, id=customer)
    sync = f"sync_{customer.removeprefix('cus_')}_1"

    async with asyncio.timeout(TIMEOUT_SECONDS):
        event = asyncio.create_task(anext(events))
        await api.wait_for_subscriber(customer)
        await api.services.change_feed.publish(
            Change(customer, ChangeReason.SYNC, sync=sync, invoice=invoice)
        )
        data = (await event).data
    await events.aclose()

    assert data is not None
    assert data["billingChanged"]["sync"] == {"id": sync, "status": "SUCCEEDED"}
    assert data["billingChanged"]["invoice"] == {"id": invoice}


async def next_change(events: AsyncGenerator[ExecutionResult, None]) -> dict[str, Any]:
    """The next change, except for refreshes, which follow each."""
    async for event in events:
        assert event.data is not None, event.errors
        change: dict[str, Any] = event.data["billingChanged"]
        if change["reason"] not in ("USAGE", "REFRESH"):
            return change
    raise AssertionError("the subscription has ended")


async def final_sync_status(api: ApiHarness, customer: str) -> tuple[str, int]:
    """Request a sync, follow it and flush; return its final status and the number of Stripe calls."""
    events = await api.subscribe(panel_viewer(customer), FOLLOW, id=customer)
    async with asyncio.timeout(TIMEOUT_SECONDS):
        first = asyncio.create_task(next_change(events))
        await api.wait_for_subscriber(customer)
        sync = (await api.query(panel_viewer(customer), SYNC, id=customer))["syncBilling"]["sync"][
            "id"
        ]
        queued = await first
        with count_calls() as sent:
            await api.flush(customer)
        ended = await next_change(events)
        next_one = asyncio.create_task(next_change(events))
        await api.query(SUPPORT, HOLD, id=customer)
        after = await next_one
    await events.aclose()

    assert queued["sync"] == {"id": sync, "status": "QUEUED"}
    assert (ended["reason"], ended["sync"]["id"]) == ("SYNC", sync)
    assert after["reason"] == "SUPPORT", "it ends once"
    return ended["sync"]["status"], sent.calls


async def test_sync_is_followed_to_its_end(api: ApiHarness) -> None:
    """The subscription alone shows that a sync has finished."""
    customer = await api.shop.customer()
    await api.record_usage(customer, "1000000")

    status, calls = await final_sync_status(api, customer)

    assert status == "SUCCEEDED"
    assert calls > 0


async def test_sync_without_changes_is_followed_to_its_end(api: ApiHarness) -> None:
    """A sync without writes to Stripe finishes, too."""
    customer = await api.shop.customer()
    await api.record_usage(customer, "1000000")
    await api.flush(customer)

    assert await final_sync_status(api, customer) == ("SUCCEEDED", 0)


async def test_failed_sync_is_followed_to_its_end(api: ApiHarness) -> None:
    """The subscription shows that a sync has failed."""
    customer = CustomerId(await api.shop.customer())
    period = await api.services.ledger.periods.current(customer)
    for _ in range(MAX_CRASHES):
        await api.services.ledger.leases.acquire(customer, period, lease_ms=0)

    assert await final_sync_status(api, customer) == ("FAILED", 0)


async def test_subscription_to_a_foreign_customer_completes_at_once(api: ApiHarness) -> None:
    """It behaves as for a customer that does not exist."""
    customer = await api.shop.customer()

    async with asyncio.timeout(TIMEOUT_SECONDS):
        foreign = [
            event async for event in await api.subscribe(OTHER_CUSTOMER, FOLLOW, id=customer)
        ]
        absent = [event async for event in await api.subscribe(SUPPORT, FOLLOW, id="cus_absent")]

    assert foreign == absent == []


async def test_event_with_errors_does_not_end_the_subscription(
    api: ApiHarness, sandbox: StripeSandbox
) -> None:
    """While Stripe is unavailable the event carries an error; later events arrive."""
    customer = await api.shop.customer()
    invoice = await api.create_invoice(customer, 100)
    events = await api.subscribe(panel_viewer(customer), FOLLOW, id=customer)
    changed = Change(customer, ChangeReason.WEBHOOK, invoice=invoice)

    async with asyncio.timeout(TIMEOUT_SECONDS):
        first = asyncio.create_task(anext(events))
        await api.wait_for_subscriber(customer)
        await sandbox.fault("error_500_before", "GET /v1/invoices/{invoice}", times=20)
        await api.services.change_feed.publish(changed)
        failed = await first
        await sandbox.clear_faults()
        await api.services.cache.invalidate(invoice)
        second = asyncio.create_task(anext(events))
        await api.services.change_feed.publish(changed)
        shown = await second
    await events.aclose()

    assert failed.errors
    assert shown.data is not None
    assert shown.data["billingChanged"]["invoice"] == {"id": invoice}
