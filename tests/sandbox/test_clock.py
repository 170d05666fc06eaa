"""The clock moves forward only, and things that wait for it happen."""

from typing import Any

import httpx
import pytest
from stripe import StripeClient

from tests.support.receiver import Receiver
from tests.support.stripe_sandbox import StripeSandbox

HOUR = 3600


async def scheduled(client: StripeClient, **params: Any) -> Any:
    """Return a draft of 100 that advances by itself."""
    customer = await client.v1.customers.create_async({})
    draft = await client.v1.invoices.create_async(
        {"customer": customer.id, "auto_advance": True, **params}
    )
    return await client.v1.invoices.add_lines_async(draft.id, {"lines": [{"amount": 100}]})


async def status(client: StripeClient, invoice: str) -> str:
    """Return the invoice's status now."""
    return str((await client.v1.invoices.retrieve_async(invoice)).status)


async def test_with_nobody_listening_a_draft_advances_after_an_hour(
    sandbox: StripeSandbox, client: StripeClient
) -> None:
    """Not a minute earlier."""
    draft = await scheduled(client)
    await sandbox.advance(HOUR - 60)
    assert await status(client, draft.id) == "draft"
    await sandbox.advance(120)
    assert await status(client, draft.id) == "open"


async def test_a_draft_made_by_api_stays_one(
    sandbox: StripeSandbox, client: StripeClient, draft: Any
) -> None:
    """auto_advance is off unless asked for."""
    await sandbox.advance(365 * 24 * HOUR)

    assert await status(client, draft.id) == "draft"


async def test_the_hour_begins_when_the_webhook_was_heard(
    sandbox: StripeSandbox, client: StripeClient, receiver: Receiver
) -> None:
    """A receiver that was down for a while delays the bill."""
    await sandbox.settings(retry_scale=1)
    up = False
    receiver.answer = lambda _: 200 if up else 503
    draft = await scheduled(client)
    await sandbox.drain_webhooks()
    await sandbox.advance(2 * HOUR)
    await sandbox.drain_webhooks()
    assert await status(client, draft.id) == "draft"
    up = True
    await sandbox.advance(12 * HOUR)
    await sandbox.drain_webhooks()
    assert await status(client, draft.id) == "draft"
    await sandbox.advance(HOUR + 1)
    assert await status(client, draft.id) == "open"


async def test_after_72_hours_a_deaf_receiver_delays_no_more(
    sandbox: StripeSandbox, client: StripeClient, receiver: Receiver
) -> None:
    """Stripe's patience has an end."""
    receiver.answer = lambda _: 500
    draft = await scheduled(client)
    await sandbox.advance(71 * HOUR)
    assert await status(client, draft.id) == "draft"
    await sandbox.advance(HOUR + 1)
    assert await status(client, draft.id) == "open"


async def test_a_chosen_time_waits_for_no_webhook(
    sandbox: StripeSandbox, client: StripeClient, receiver: Receiver
) -> None:
    """automatically_finalizes_at is kept to the second."""
    receiver.answer = lambda _: 500
    at = int(await sandbox.now()) + 10 * HOUR
    draft = await scheduled(client, automatically_finalizes_at=at)
    assert draft.automatically_finalizes_at == at
    await sandbox.advance(10 * HOUR + 1)
    assert await status(client, draft.id) == "open"


async def test_advancing_by_itself_also_collects(
    sandbox: StripeSandbox, client: StripeClient
) -> None:
    """A default card pays the bill an hour later."""
    draft = await scheduled(client)
    card = await client.v1.payment_methods.attach_async(
        "pm_card_visa", {"customer": draft.customer}
    )
    settings: Any = {"invoice_settings": {"default_payment_method": card.id}}
    await client.v1.customers.update_async(draft.customer, settings)
    await sandbox.advance(HOUR + 1)

    assert await status(client, draft.id) == "paid"


async def test_events_are_kept_for_30_days(
    sandbox: StripeSandbox, client: StripeClient, draft: Any
) -> None:
    """Whoever looks later finds nothing."""
    assert (await client.v1.events.list_async()).data
    await sandbox.advance(30 * 24 * HOUR + 1)

    assert (await client.v1.events.list_async()).data == []


async def test_time_does_not_run_backwards(sandbox: StripeSandbox) -> None:
    """Not even for a test."""
    with pytest.raises(httpx.HTTPStatusError, match="forward"):
        await sandbox.advance(-1)
