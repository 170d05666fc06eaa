"""The calls to Stripe that closing a month takes, by the length of its bill: nothing is read twice."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from billing.budget import Lane
from billing.invoicing.request_batch import StripeRequest
from billing.ledger import keys
from billing.stripe import ApiResponse
from billing.usage import CustomerId, Period
from billing.usage_ingestion import record_usage
from tests.support.account import Account
from tests.support.stripe_catalog import delta
from tests.support.webhook_server import WebhookWorld
from workers.flush.outcome import FlushOutcome

LENGTHS = (10, 15, 100, 250)


@pytest.fixture(params=LENGTHS)
async def account(request: pytest.FixtureRequest, world_without_webhooks: WebhookWorld) -> Account:
    """A customer of last month whose synced draft has as many lines as the parameter says."""
    world, lines = world_without_webhooks, request.param
    customer = CustomerId(await world.shop.customer())
    account = Account(world, customer, Period.containing(datetime.now(UTC)).previous())
    await use(account, "100")
    for number in range(lines - 1):
        await account.adjust(str(number + 1), f"correction {number}", account.period)
    await account.flush()
    return account


async def use(account: Account, quantity: str) -> None:
    """Record usage of the ended period."""
    at = (account.period.end - timedelta(seconds=1)).isoformat()
    await record_usage(
        account.world.services, [delta(account.customer, quantity, "egress-gb", occurred_at=at)]
    )


async def close(account: Account) -> tuple[int, int]:
    """Close the month; return the reads and writes that it took."""
    assert await account.world.services.ledger.periods.close(account.customer, account.period)
    await account.world.sandbox.reset_counters()
    assert (await account.flush()).outcome is FlushOutcome.SEALED
    counters = await account.world.sandbox.counters()
    return counters["reads"], counters["writes"]


async def billed(account: Account) -> tuple[str, int, int]:
    """Return the bill's status, its number of lines and its total."""
    (invoice,) = await account.invoices()
    return invoice["status"], len(await account.lines()), invoice["total"]


def owed(lines: int, usage: int = 100) -> int:
    """Return what a bill of so many lines comes to, in cents."""
    return 2 * (usage + lines * (lines - 1) // 2)


def most_reads(lines: int) -> int:
    """Return the list of invoices and, unless it shows all lines, at most two pages of them."""
    return 1 + (lines > 10) + (lines > 100)


async def test_exact_draft_is_read_once_and_finalized(account: Account) -> None:
    """Nothing is left to tell: the only write makes the bill final."""
    lines = len((await account.snapshot()).totals)

    assert await close(account) == (most_reads(lines), 1)
    assert await billed(account) == ("open", lines, owed(lines))


async def test_draft_that_lacks_usage_takes_two_writes(account: Account) -> None:
    """The last usage is sent and the bill made final without another read."""
    lines = len((await account.snapshot()).totals)
    await use(account, "11")

    assert await close(account) == (most_reads(lines), 2)
    assert await billed(account) == ("open", lines, owed(lines, usage=111))


async def test_draft_that_the_ledger_does_not_know_is_adopted(
    account: Account, redis: Redis
) -> None:
    """Its creation was answered to nobody; without stored lines a third page must be read."""
    lines = len((await account.snapshot()).totals)
    await redis.hdel(keys.period(account.customer, account.period), "invoice", "synced")
    await redis.delete(keys.lines(account.customer, account.period))
    await use(account, "11")

    assert await close(account) == (most_reads(lines) + (lines > 200), 2)
    assert await billed(account) == ("open", lines, owed(lines, usage=111))


async def edit_last_line(account: Account) -> None:
    """Change the quantity of the last line as a person does, unseen in the lines that a response embeds."""
    (invoice,) = await account.invoices()
    path = f"/v1/invoices/{invoice['id']}/lines"
    shown = await account.world.services.stripe.list_all(path, lane=Lane.SUPPORT)
    await account.world.sandbox.dashboard(
        "edit_line", invoice["id"], line=shown[-1]["id"], quantity_decimal="3000"
    )


@pytest.mark.parametrize("account", [15, 250], indirect=True)
async def test_edited_line_is_put_right_before_the_month_ends(account: Account) -> None:
    """Even on the last page, which is read because the invoice's sum is not that of the stored lines."""
    lines = len((await account.snapshot()).totals)
    await edit_last_line(account)

    await close(account)
    assert await billed(account) == ("open", lines, owed(lines))


@pytest.mark.parametrize("account", [15, 250], indirect=True)
@pytest.mark.parametrize("endpoint", ["update_lines", "finalize"])
async def test_line_edited_between_look_and_write_is_seen(account: Account, endpoint: str) -> None:
    """The response's sum differs: before finalization it is put right, after it the excess is given back."""
    lines = len((await account.snapshot()).totals)
    await use(account, "11")
    send = account.context.stripe.send

    async def edited_meanwhile(request: StripeRequest, **options: Any) -> ApiResponse:
        if request.path.endswith(endpoint):
            await edit_last_line(account)
        return await send(request, **options)

    account.context.stripe.send = edited_meanwhile  # type: ignore[method-assign]
    await close(account)

    _, _, total = await billed(account)
    following = await account.world.services.ledger.periods.snapshot(
        account.customer, account.period.next()
    )
    assert total + 2 * sum(following.totals.values()) == owed(lines, usage=111)
    assert bool(following.totals) == (endpoint == "finalize")
