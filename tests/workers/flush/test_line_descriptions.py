"""The words of our lines: a line billed by a bare amount says what it is for, also after it changed."""

from typing import Any

import pytest

from billing.budget import Lane
from billing.invoicing import diff
from billing.usage import CustomerId
from billing.usage_ingestion import record_usage
from tests.support.account import Account
from tests.support.stripe_catalog import delta
from tests.support.webhook_server import WebhookWorld
from workers.flush.outcome import FlushOutcome


@pytest.fixture
async def account(world_without_webhooks: WebhookWorld) -> Account:
    """A customer without usage."""
    services = world_without_webhooks.services
    customer = CustomerId(await world_without_webhooks.shop.customer())
    await record_usage(services, [delta(customer, "0")])
    return Account(
        world_without_webhooks, customer, await services.ledger.periods.current(customer)
    )


async def flushed_lines(account: Account) -> dict[str, tuple[str, int]]:
    """Flush; return the words and amount of each of our lines at Stripe."""
    assert (await account.flush()).outcome is FlushOutcome.SYNCED
    return {
        line["metadata"]["gw_line"]: (line["description"], line["amount"])
        for line in await stripe_lines(account)
    }


async def stripe_lines(account: Account) -> list[dict[str, Any]]:
    """Return the lines of the only invoice."""
    (invoice,) = await account.invoices()
    path = f"/v1/invoices/{invoice['id']}/lines"
    return await account.world.services.stripe.list_all(path, lane=Lane.SUPPORT)


async def test_credit_description_states_the_current_quantity(account: Account) -> None:
    """The customer reads it on the bill, beside the amount."""
    await account.use("-5")
    assert await flushed_lines(account) == {"egress-gb": ("egress gb: credit for 5", -10)}
    await account.use("-2")
    assert await flushed_lines(account) == {"egress-gb": ("egress gb: credit for 7", -14)}
    await account.use("3.5")
    assert await flushed_lines(account) == {"egress-gb": ("egress gb: credit for 3.5", -7)}


async def test_line_description_follows_its_form(account: Account) -> None:
    """Usage that becomes a credit, and back."""
    await account.use("5")
    assert await flushed_lines(account) == {"egress-gb": ("egress gb", 10)}
    await account.use("-6")
    assert await flushed_lines(account) == {"egress-gb": ("egress gb: credit for 1", -2)}
    await account.use("2")
    assert await flushed_lines(account) == {"egress-gb": ("egress gb", 2)}


async def test_rest_line_description_states_its_item_count(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its amount and its words change together when another item joins it."""
    monkeypatch.setattr(diff, "MAX_LINES", 1)
    await account.use("5")
    await account.use("100000", "machine-seconds")
    assert (await flushed_lines(account))["rest"] == ("2 further items", 320)
    await account.use("1000", "volume-hours")
    assert (await flushed_lines(account))["rest"] == ("3 further items", 341)


async def test_amount_that_a_person_changed_is_restored_with_its_words(account: Account) -> None:
    """Both were edited in Stripe's Dashboard."""
    await account.use("-5")
    await account.flush()
    (invoice,), [line] = await account.invoices(), await stripe_lines(account)
    await account.world.sandbox.dashboard(
        "edit_line", invoice["id"], line=line["id"], amount=-1, description="goodwill"
    )
    await account.world.services.ledger.periods.request_verify(account.customer, account.period)

    assert await flushed_lines(account) == {"egress-gb": ("egress gb: credit for 5", -10)}
