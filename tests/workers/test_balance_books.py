"""The books: ledger and Stripe agree to the cent wherever they ought to, and a loss shows at once."""

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis

from billing.invoicing import rewind
from billing.ledger import keys
from billing.ledger.books import DifferenceKind
from billing.usage import CustomerId, LineKey, Period
from tests.simulation.mutation import lua
from tests.support.account import Account
from tests.support.webhook_server import WebhookWorld
from workers.balance_books import INTERVAL_MS, balance_books
from workers.flush.outcome import FlushOutcome


@pytest.fixture
async def account(world_without_webhooks: WebhookWorld) -> Account:
    """A customer without usage, in the current period."""
    customer = CustomerId(await world_without_webhooks.shop.customer())
    return Account(world_without_webhooks, customer, Period.containing(datetime.now(UTC)))


async def month_before(account: Account, quantity: str) -> Account:
    """Return the same customer's previous month with usage that is not closed yet."""
    before = Account(account.world, account.customer, account.period.previous())
    at = (before.period.end - timedelta(minutes=1)).isoformat()
    await before.use(quantity, occurred_at=at)
    return before


async def sealed_month(account: Account, quantity: str) -> Account:
    """Bill *quantity* for the month before."""
    before = await month_before(account, quantity)
    assert await account.world.services.ledger.periods.close(account.customer, before.period)
    assert (await before.flush()).outcome is FlushOutcome.SEALED
    return before


async def balance(account: Account) -> int:
    """Balance the books of all shards; return the number of periods that were looked at."""
    services = account.world.services
    shards = range(keys.SHARDS)
    return sum([await balance_books(services, now_ms=shard * INTERVAL_MS) for shard in shards])


async def difference(account: Account) -> int:
    """Return ledger minus Stripe in cents, over all customers."""
    backlogs = await account.world.services.ledger.due.backlogs()
    sums: Counter[str] = Counter()
    for backlog in backlogs:
        sums.update(backlog.difference_sums)
    assert (sums["usd"] != 0) == any(backlog.differences for backlog in backlogs)
    return sums["usd"]


async def test_books_of_a_healthy_system_show_nothing(account: Account) -> None:
    """Whatever is pending, on hold, carried forward or put right after an edit is accounted for."""
    before = await month_before(account, "50")
    await before.flush()
    (draft,) = await account.invoices()
    await account.world.sandbox.dashboard("finalize", draft["id"])
    at = (before.period.end - timedelta(minutes=1)).isoformat()
    await before.use("8", occurred_at=at)  # the bill that a person made final lacks it
    for _ in range(2):
        await account.world.services.ledger.periods.request_verify(account.customer, before.period)
        await before.flush()
    await account.use("7")
    await account.use("0.3", sku="machine-seconds")
    await account.flush()
    draft = next(invoice for invoice in await account.invoices() if invoice["status"] == "draft")
    line = (await account.snapshot()).lines[LineKey("egress-gb")]
    edit = {"line": line.id, "quantity_decimal": "90"}
    await account.world.sandbox.dashboard("edit_line", draft["id"], **edit)
    await account.world.services.ledger.periods.request_verify(account.customer, account.period)
    await account.flush()
    await account.use("1")
    await account.world.services.ledger.holds.place(account.customer, "Disputed", "ann")

    assert (await account.snapshot()).totals[LineKey(f"egress-gb~{before.period}")] == 8
    assert await balance(account) == 1
    assert await difference(account) == 0


async def test_loss_shows_while_the_customer_is_on_hold_for_it(
    account: Account, redis: Redis
) -> None:
    """And no longer once the producers have sent the usage again."""
    await account.use("3000")
    await account.flush()
    await redis.flushall()
    await account.use("1000")
    await account.flush()
    assert await difference(account) == -4000

    await account.use("2000")
    await account.flush()
    assert await difference(account) == 0
    assert await balance(account) == 1


async def test_loss_that_a_person_accepts_is_no_difference_any_more(
    account: Account, redis: Redis
) -> None:
    """The ledger's figures count from then on."""
    await account.use("3000")
    await account.flush()
    await redis.flushall()
    await account.use("1")
    await account.flush()
    await account.world.services.ledger.holds.release(account.customer)
    await account.flush()

    assert await account.lines() == {"egress-gb": ("1", 2)}
    assert await difference(account) == 0


@pytest.fixture
def unrecognized_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is recognized as written by a flush that the ledger does not know."""
    monkeypatch.setattr(rewind, "unknown_flush", lambda *_: None)


@pytest.mark.usefixtures("unrecognized_loss")
async def test_forgotten_bill_that_is_given_back_shows(account: Account, redis: Redis) -> None:
    """Although a flush begins the forgotten month anew, and nothing stops it."""
    before = await sealed_month(account, "1550")
    await redis.delete(*[key async for key in redis.scan_iter(f"*:{before.period}*")])
    await redis.zrem(keys.periods(account.customer), str(before.period))
    with lua("acquire", "not before and not takes_usage(period, ARGV[6])", "false"):
        await before.flush()
        await account.world.services.ledger.periods.request_verify(account.customer, before.period)
        await before.flush()
    await before.flush()

    assert (await account.snapshot()).totals[LineKey(f"egress-gb~{before.period}")] == -1550
    assert await difference(account) == -3100


@pytest.mark.usefixtures("unrecognized_loss")
async def test_replaced_ledger_that_lowers_drafts_and_credits_bills_shows(
    account: Account, redis: Redis
) -> None:
    """The emptied ledger adopts bill and draft, and makes them what little it has."""
    before = await sealed_month(account, "1550")
    await account.use("3000")
    await account.flush()
    await redis.flushall()
    await account.use("1")
    await account.flush()
    assert await difference(account) == -5998

    await account.world.services.ledger.periods.close(account.customer, before.period)
    await before.flush()
    assert (await account.snapshot()).totals[LineKey(f"egress-gb~{before.period}")] == -1550
    assert await difference(account) == -5998 - 3100


async def test_carry_that_a_synced_draft_lacks_shows(account: Account, redis: Redis) -> None:
    """Its version was not raised, so no flush would send it before the month ends."""
    await account.use("10")
    await account.flush()
    totals = keys.totals(account.customer, account.period)
    price = (await account.snapshot()).prices[LineKey("egress-gb")]
    await redis.hset(totals, f"egress-gb~{account.period.previous()}", f"{price} 4")
    assert (await balance(account), await difference(account)) == (1, 8)
    [found] = await account.world.services.ledger.books.differences(keys.shard_of(account.customer))
    assert (found.kind, found.customer) == (DifferenceKind.UNSENT, account.customer)

    await account.use("1")
    await account.flush()
    assert (await balance(account), await difference(account)) == (1, 0)


async def test_balancing_reads_nothing_from_stripe(account: Account) -> None:
    """The drafts' lines are those that the last flush confirmed."""
    await account.use("10")
    await account.flush()
    await account.world.services.price_catalog.by_sku(["egress-gb"])
    await account.world.sandbox.reset_counters()

    assert await balance(account) == 1
    assert (await account.world.sandbox.counters())["total"] == 0
