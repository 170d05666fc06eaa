"""Following a customer's bill while it changes."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from strawberry.types import ExecutionResult

from billing.change_feed import Change, ChangeReason
from billing.stripe import tally
from billing.usage import CustomerId
from tests.resolvers.conftest import SOMEBODY_ELSE, SUPPORT, Desk, panel_of
from tests.support.stripe_sandbox import StripeSandbox
from workers.flush.flush import MAX_CRASHES

FOLLOW = """subscription ($id: ID!) { billingChanged(customerId: $id) {
  reason at customer { id name currentPeriod { total { amount } } } sync { id status } invoice { id } } }"""
HOLD = """mutation ($id: ID!) { holdBilling(input: {customerId: $id, reason: "why"}) { hold { since } } }"""
SYNC = """mutation ($id: ID!) { syncBilling(input: {customerId: $id}) { sync { id } } }"""
PATIENCE = 10


async def test_each_event_shows_what_is_true_then(desk: Desk) -> None:
    """Nothing that an earlier event loaded is shown again."""
    customer = await desk.shop.customer()
    events = await desk.follow(panel_of(customer), FOLLOW, id=customer)

    async with asyncio.timeout(PATIENCE):
        first = asyncio.create_task(anext(events))
        await desk.listening(customer)
        await desk.use(customer, "1000000")
        used = (await first).data
        asked = asyncio.create_task(anext(events))
        await desk.ask(SUPPORT, HOLD, id=customer)
        held = (await asked).data
        while held is not None and held["billingChanged"]["reason"] == "USAGE":  # is repeated once
            held = (await anext(events)).data
    await events.aclose()

    assert used is not None
    assert held is not None
    assert used["billingChanged"]["reason"] == "USAGE"
    assert used["billingChanged"]["customer"]["currentPeriod"]["total"]["amount"] == "31"
    assert held["billingChanged"]["reason"] == "SUPPORT"
    assert used["billingChanged"]["at"] < held["billingChanged"]["at"]


async def test_an_event_carries_the_sync_and_the_invoice_it_is_about(desk: Desk) -> None:
    """A panel that follows a sync needs no second question."""
    customer = await desk.shop.customer()
    invoice = await desk.invoice(customer, 100)
    await desk.use(customer, "1000000")
    await desk.flush(customer)
    events = await desk.follow(panel_of(customer), FOLLOW, id=customer)
    sync = f"sync_{customer.removeprefix('cus_')}_1"

    async with asyncio.timeout(PATIENCE):
        event = asyncio.create_task(anext(events))
        await desk.listening(customer)
        await desk.services.changes.publish(
            Change(customer, ChangeReason.SYNC, sync=sync, invoice=invoice)
        )
        told = (await event).data
    await events.aclose()

    assert told is not None
    assert told["billingChanged"]["sync"] == {"id": sync, "status": "SUCCEEDED"}
    assert told["billingChanged"]["invoice"] == {"id": invoice}


async def news(events: AsyncGenerator[ExecutionResult, None]) -> dict[str, Any]:
    """The next change but for usage, which is repeated."""
    async for event in events:
        assert event.data is not None, event.errors
        change: dict[str, Any] = event.data["billingChanged"]
        if change["reason"] != "USAGE":
            return change
    raise AssertionError("the subscription has ended")


async def status_told_last(desk: Desk, customer: str) -> tuple[str, int]:
    """Ask for a sync, follow it, flush: the status it was told to have, and the calls it made."""
    events = await desk.follow(panel_of(customer), FOLLOW, id=customer)
    async with asyncio.timeout(PATIENCE):
        first = asyncio.create_task(news(events))
        await desk.listening(customer)
        sync = (await desk.ask(panel_of(customer), SYNC, id=customer))["syncBilling"]["sync"]["id"]
        queued = await first
        with tally() as sent:
            await desk.flush(customer)
        ended = await news(events)
        next_one = asyncio.create_task(news(events))
        await desk.ask(SUPPORT, HOLD, id=customer)
        after = await next_one
    await events.aclose()

    assert queued["sync"] == {"id": sync, "status": "QUEUED"}
    assert (ended["reason"], ended["sync"]["id"]) == ("SYNC", sync)
    assert after["reason"] == "SUPPORT", "it ends once"
    return ended["sync"]["status"], sent.calls


async def test_a_sync_is_followed_to_its_end(desk: Desk) -> None:
    """A panel that shows a sync under way learns from the subscription alone that it is over."""
    customer = await desk.shop.customer()
    await desk.use(customer, "1000000")

    status, calls = await status_told_last(desk, customer)

    assert status == "SUCCEEDED"
    assert calls > 0


async def test_a_sync_with_nothing_to_tell_stripe_is_followed_to_its_end(desk: Desk) -> None:
    """It is over just the same, although nothing on the bill has changed."""
    customer = await desk.shop.customer()
    await desk.use(customer, "1000000")
    await desk.flush(customer)

    assert await status_told_last(desk, customer) == ("SUCCEEDED", 0)


async def test_a_sync_that_fails_is_followed_to_its_end(desk: Desk) -> None:
    """Whoever waits for it can stop waiting."""
    customer = CustomerId(await desk.shop.customer())
    period = await desk.services.ledger.open_period(customer)
    for _ in range(MAX_CRASHES):
        await desk.services.ledger.acquire(customer, period, lease_ms=0)

    assert await status_told_last(desk, customer) == ("FAILED", 0)


async def test_a_foreign_customer_cannot_be_followed(desk: Desk) -> None:
    """It ends at once, exactly as for a customer who is not there."""
    customer = await desk.shop.customer()

    async with asyncio.timeout(PATIENCE):
        foreign = [each async for each in await desk.follow(SOMEBODY_ELSE, FOLLOW, id=customer)]
        absent = [each async for each in await desk.follow(SUPPORT, FOLLOW, id="cus_absent")]

    assert foreign == absent == []


async def test_an_event_that_cannot_be_answered_is_not_the_last_one(
    desk: Desk, sandbox: StripeSandbox
) -> None:
    """Stripe is away for a moment; the panel is told so, and goes on following."""
    customer = await desk.shop.customer()
    invoice = await desk.invoice(customer, 100)
    events = await desk.follow(panel_of(customer), FOLLOW, id=customer)
    changed = Change(customer, ChangeReason.WEBHOOK, invoice=invoice)

    async with asyncio.timeout(PATIENCE):
        first = asyncio.create_task(anext(events))
        await desk.listening(customer)
        await sandbox.fault("error_500_before", "GET /v1/invoices/{invoice}", times=20)
        await desk.services.changes.publish(changed)
        failed = await first
        await sandbox.no_faults()
        await desk.services.cache.forget(invoice)
        second = asyncio.create_task(anext(events))
        await desk.services.changes.publish(changed)
        shown = await second
    await events.aclose()

    assert failed.errors
    assert shown.data is not None
    assert shown.data["billingChanged"]["invoice"] == {"id": invoice}
