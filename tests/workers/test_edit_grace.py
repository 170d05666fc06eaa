"""A draft that somebody edits in the Dashboard is left as it is for ten minutes."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from redis.asyncio import Redis

from billing.budget import Lane
from billing.ledger import keys
from billing.services import open_services
from billing.settings import Settings
from billing.usage import CustomerId, LineKey, Period
from tests.conftest import WEBHOOK_SECRET
from tests.support.account import Account
from tests.support.stripe_catalog import Shop
from tests.support.stripe_sandbox import StripeSandbox
from tests.support.webhook_server import WebhookWorld, webhook_server
from workers.flush.flush import flush
from workers.flush.outcome import FlushOutcome, FlushResult
from workers.process_events import process_events

GRACE_SECONDS = 600


@pytest.fixture
async def account(
    settings: Settings, redis: Redis, sandbox: StripeSandbox
) -> AsyncIterator[Account]:
    """A customer with 30 units on a draft, at a gateway that gives people the default time."""
    own = settings.model_copy(update={"edit_grace": GRACE_SECONDS})
    async with open_services(own) as services, webhook_server(services) as url:
        shop = Shop(services)
        await shop.open()
        await sandbox.register_endpoint(url, WEBHOOK_SECRET)
        customer = CustomerId(await shop.customer())
        world = WebhookWorld(services, sandbox, shop)
        account = Account(world, customer, Period.containing(datetime.now(UTC)))
        await account.use("30")
        await account.flush()
        await deliver(account)
        yield account


async def deliver(account: Account) -> None:
    """Let Stripe deliver its events, and process them."""
    await account.world.sandbox.drain_webhooks()
    while await process_events(account.world.services, 50):
        pass


async def routine_flush(account: Account) -> FlushResult:
    """Flush for no person, as the dispatcher does."""
    return await flush(account.customer, account.period, account.context, lane=Lane.INTERVAL)


async def in_dashboard(account: Account, action: str, **changes: Any) -> str:
    """Do to the draft what a person does in the Dashboard; return the draft's id."""
    draft = next(invoice for invoice in await account.invoices() if invoice["status"] == "draft")
    if action == "edit_line":
        line = (await account.snapshot()).lines[LineKey("egress-gb")]
        changes = {"line": line.id, "quantity_decimal": "7"}
    await account.world.sandbox.dashboard(action, draft["id"], **changes)
    await deliver(account)
    return str(draft["id"])


async def pass_time(account: Account, redis: Redis, seconds: float) -> None:
    """Move the edit, and the cut, into the past by *seconds*."""
    key = keys.period(account.customer, account.period)
    for field in ("edited_ms", "closed_ms"):
        if value := await redis.hget(key, field):
            await redis.hset(key, field, int(value) - round(seconds * 1000))


async def due_in(account: Account) -> float:
    """Return the seconds until the period is due."""
    due_ms = await account.world.services.ledger.due.time_ms(account.customer, account.period)
    assert due_ms is not None
    return (due_ms - (await account.snapshot()).now_ms) / 1000


async def test_edited_line_stays_for_the_grace_and_is_put_right_after_it(
    account: Account, redis: Redis
) -> None:
    """The draft is due when the grace ends; flushes before leave it alone, with new usage too."""
    await in_dashboard(account, "edit_line")
    assert GRACE_SECONDS - 60 < await due_in(account) <= GRACE_SECONDS
    await account.use("1")
    waiting = await routine_flush(account)
    assert (waiting.outcome, waiting.delay_ms > 0) == (FlushOutcome.WAITING, True)
    assert await account.lines() == {"egress-gb": ("30", 14)}

    await pass_time(account, redis, GRACE_SECONDS)
    assert (await routine_flush(account)).outcome is FlushOutcome.SYNCED
    assert await account.lines() == {"egress-gb": ("31", 62)}


async def test_each_edit_begins_the_grace_anew(account: Account, redis: Redis) -> None:
    """Somebody who edits in several steps is not interrupted between two of them."""
    await in_dashboard(account, "edit_line")
    await pass_time(account, redis, GRACE_SECONDS - 1)
    await in_dashboard(account, "update", description="being corrected")

    waiting = await routine_flush(account)
    assert waiting.outcome is FlushOutcome.WAITING
    assert waiting.delay_ms > 60_000


async def test_deleted_draft_is_created_again_after_the_grace(
    account: Account, redis: Redis
) -> None:
    """Its deletion may be one step of several."""
    await in_dashboard(account, "delete")
    assert (await routine_flush(account)).outcome is FlushOutcome.WAITING
    assert await account.invoices() == []

    await pass_time(account, redis, GRACE_SECONDS)
    await routine_flush(account)
    assert await account.lines() == {"egress-gb": ("30", 60)}


async def test_requested_sync_puts_an_edit_right_at_once(account: Account) -> None:
    """A person who wants the draft in order does not wait for another's grace."""
    await in_dashboard(account, "edit_line")
    await account.world.services.ledger.syncs.request(account.customer, "SUPPORT", by="ann")

    assert (await routine_flush(account)).outcome is FlushOutcome.SYNCED
    assert await account.lines() == {"egress-gb": ("30", 60)}


async def test_own_writes_begin_no_grace(account: Account) -> None:
    """Their events quote our idempotency keys."""
    await account.use("1")
    await routine_flush(account)
    await deliver(account)

    assert (await account.snapshot()).edited_ms is None


async def test_bill_that_a_person_finalizes_has_no_grace(account: Account) -> None:
    """Its month is closed and sealed at once, and an edit before does not delay that."""
    await in_dashboard(account, "edit_line")
    await in_dashboard(account, "finalize")
    for _ in range(2):
        await routine_flush(account)

    following = account.period.next()
    snapshot = await account.world.services.ledger.periods.snapshot(account.customer, following)
    assert snapshot.totals[LineKey(f"egress-gb~{account.period}")] == 23


async def test_edits_after_the_cut_do_not_keep_a_month_open(account: Account, redis: Redis) -> None:
    """One grace after the cut the draft is put right and made final, whoever edits it until then."""
    await account.world.services.ledger.periods.close(account.customer, account.period)
    invoice = await in_dashboard(account, "edit_line")
    assert (await routine_flush(account)).outcome is FlushOutcome.WAITING

    await pass_time(account, redis, GRACE_SECONDS)
    await in_dashboard(account, "update", description="not yet")
    assert (await routine_flush(account)).outcome is FlushOutcome.SEALED
    body = await account.world.services.stripe.read(f"/v1/invoices/{invoice}", lane=Lane.SUPPORT)
    assert (body["status"], body["total"]) == ("open", 60)
