"""The simulated clock moves forward only and runs the timers that are due."""

from typing import Any

import httpx
import pytest
from stripe import StripeClient

from tests.support.receiver import Receiver
from tests.support.stripe_sandbox import StripeSandbox

HOUR = 3600


async def create_scheduled_draft(client: StripeClient, **params: Any) -> Any:
    """Return a draft of 100 that advances by itself."""
    customer = await client.v1.customers.create_async({})
    draft = await client.v1.invoices.create_async(
        {"customer": customer.id, "auto_advance": True, **params}
    )
    return await client.v1.invoices.add_lines_async(draft.id, {"lines": [{"amount": 100}]})


async def invoice_status(client: StripeClient, invoice: str) -> str:
    """Return the invoice's current status."""
    return str((await client.v1.invoices.retrieve_async(invoice)).status)


async def test_draft_without_webhook_endpoint_finalizes_after_an_hour(
    sandbox: StripeSandbox, client: StripeClient
) -> None:
    """Not a minute earlier."""
    draft = await create_scheduled_draft(client)
    await sandbox.advance(HOUR - 60)
    assert await invoice_status(client, draft.id) == "draft"
    await sandbox.advance(120)
    assert await invoice_status(client, draft.id) == "open"


async def test_draft_without_auto_advance_stays_draft(
    sandbox: StripeSandbox, client: StripeClient, draft: Any
) -> None:
    """The API's default for auto_advance is false."""
    await sandbox.advance(365 * 24 * HOUR)

    assert await invoice_status(client, draft.id) == "draft"


async def test_finalization_hour_begins_when_webhook_is_acknowledged(
    sandbox: StripeSandbox, client: StripeClient, receiver: Receiver
) -> None:
    """A receiver that is down for a while delays the invoice."""
    await sandbox.settings(retry_scale=1)
    up = False
    receiver.answer = lambda _: 200 if up else 503
    draft = await create_scheduled_draft(client)
    await sandbox.drain_webhooks()
    await sandbox.advance(2 * HOUR)
    await sandbox.drain_webhooks()
    assert await invoice_status(client, draft.id) == "draft"
    up = True
    await sandbox.advance(12 * HOUR)
    await sandbox.drain_webhooks()
    assert await invoice_status(client, draft.id) == "draft"
    await sandbox.advance(HOUR + 1)
    assert await invoice_status(client, draft.id) == "open"


async def test_failing_receiver_delays_finalization_for_at_most_72_hours(
    sandbox: StripeSandbox, client: StripeClient, receiver: Receiver
) -> None:
    """Stripe finalizes then without the acknowledgement."""
    receiver.answer = lambda _: 500
    draft = await create_scheduled_draft(client)
    await sandbox.advance(71 * HOUR)
    assert await invoice_status(client, draft.id) == "draft"
    await sandbox.advance(HOUR + 1)
    assert await invoice_status(client, draft.id) == "open"


async def test_chosen_finalization_time_does_not_wait_for_webhooks(
    sandbox: StripeSandbox, client: StripeClient, receiver: Receiver
) -> None:
    """automatically_finalizes_at is exact to the second."""
    receiver.answer = lambda _: 500
    at = int(await sandbox.now()) + 10 * HOUR
    draft = await create_scheduled_draft(client, automatically_finalizes_at=at)
    assert draft.automatically_finalizes_at == at
    await sandbox.advance(10 * HOUR + 1)
    assert await invoice_status(client, draft.id) == "open"


async def test_automatic_finalization_charges_the_default_card(
    sandbox: StripeSandbox, client: StripeClient
) -> None:
    """The default card pays the invoice an hour later."""
    draft = await create_scheduled_draft(client)
    card = await client.v1.payment_methods.attach_async(
        "pm_card_visa", {"customer": draft.customer}
    )
    settings: Any = {"invoice_settings": {"default_payment_method": card.id}}
    await client.v1.customers.update_async(draft.customer, settings)
    await sandbox.advance(HOUR + 1)

    assert await invoice_status(client, draft.id) == "paid"


async def test_events_expire_after_30_days(
    sandbox: StripeSandbox, client: StripeClient, draft: Any
) -> None:
    """Older events are no longer listed."""
    assert (await client.v1.events.list_async()).data
    await sandbox.advance(30 * 24 * HOUR + 1)

    assert (await client.v1.events.list_async()).data == []


async def test_clock_rejects_negative_advance(sandbox: StripeSandbox) -> None:
    """Time moves forward only, in tests as well."""
    with pytest.raises(httpx.HTTPStatusError, match="forward"):
        await sandbox.advance(-1)
