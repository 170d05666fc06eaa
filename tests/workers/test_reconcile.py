"""Every open period is verified against Stripe once a week, one shard at a time."""

from itertools import count, islice

import pytest
from redis.asyncio import Redis

from billing.errors import LedgerUnavailable
from billing.ledger import keys
from billing.usage import CustomerId, Period
from billing.usage_ingestion import record_usage
from tests.support.account import Account
from tests.support.stripe_catalog import delta
from tests.support.webhook_server import WebhookWorld
from workers.reconcile import HOUR_MS, reconcile

NOW = 1_795_000_000_000
NOVEMBER = Period(2026, 11)
ONE_ROUND, WEEK = keys.SHARDS, 7 * 24


async def add_open_periods(redis: Redis, shard: int, customers: int) -> list[str]:
    """Add customers of *shard* with an open period each; return their ids."""
    names = (f"cus_{n}" for n in count())
    of_shard = (name for name in names if keys.shard_of(CustomerId(name)) == shard)
    customers_of_shard = list(islice(of_shard, customers))
    await redis.zadd(
        keys.open_periods(shard), {f"{name}|{NOVEMBER}": 1 for name in customers_of_shard}
    )
    return customers_of_shard


async def test_every_open_period_is_reconciled_once_per_round(
    world_without_webhooks: WebhookWorld,
) -> None:
    """One shard per hour, and no shard twice in a round."""
    for n in range(5):
        customer = CustomerId(await world_without_webhooks.shop.customer(f"shop-{n}"))
        await record_usage(world_without_webhooks.services, [delta(customer, "1")])

    requested = [
        await reconcile(world_without_webhooks.services.ledger, now_ms=NOW + hour * HOUR_MS)
        for hour in range(2 * ONE_ROUND)
    ]

    assert (sum(requested[:ONE_ROUND]), sum(requested)) == (5, 5)


async def test_no_shard_waits_longer_than_a_week(world_without_webhooks: WebhookWorld) -> None:
    """Even if no worker runs for two days in between."""
    ledger = world_without_webhooks.services.ledger
    away = range(2 * WEEK, 2 * WEEK + 48)

    for hour in range(4 * WEEK):
        now_ms = NOW + hour * HOUR_MS
        if hour not in away:
            await reconcile(ledger, now_ms=now_ms)
            last = await ledger.periods.last_reconciled()
            waits = max(now_ms - at_ms for at_ms in last.values()) / HOUR_MS
            assert len(last) == min(hour + 1, keys.SHARDS)
            assert waits <= WEEK + (48 if hour >= away.start else 0)
    assert waits <= WEEK


async def test_large_shard_is_read_completely(
    world_without_webhooks: WebhookWorld, redis: Redis
) -> None:
    """It has more customers than one page of Redis's answers."""
    customers = await add_open_periods(redis, 7, 2_500)

    pages = [page async for page in world_without_webhooks.services.ledger.periods.iter_open(7)]

    assert {customer for page in pages for customer, _ in page} == set(customers)


async def test_large_shard_is_reconciled_by_page(
    world_without_webhooks: WebhookWorld, redis: Redis
) -> None:
    """A write to disk per customer would exceed the job's time limit, and the last shards would never be reconciled."""
    await add_open_periods(redis, 0, 5_000)
    before = (await redis.info("stats"))["total_reads_processed"]

    requested = await reconcile(world_without_webhooks.services.ledger, now_ms=NOW)

    took = (await redis.info("stats"))["total_reads_processed"] - before
    assert requested >= 5_000
    assert took < 1_000


async def test_broken_shard_does_not_block_the_others(
    world_without_webhooks: WebhookWorld, redis: Redis
) -> None:
    """It is retried, and done once it is repaired."""
    ledger = world_without_webhooks.services.ledger
    [broken] = await add_open_periods(redis, 0, 1)
    await add_open_periods(redis, 1, 1)
    await redis.set(keys.customer(CustomerId(broken)), "no hash")
    await redis.set(keys.period(CustomerId(broken), NOVEMBER), "no hash")

    with pytest.raises(LedgerUnavailable):
        await reconcile(ledger, now_ms=NOW)
    others = await reconcile(ledger, now_ms=NOW + HOUR_MS)
    await redis.delete(keys.customer(CustomerId(broken)), keys.period(CustomerId(broken), NOVEMBER))
    rest = [
        await reconcile(ledger, now_ms=NOW + hour * HOUR_MS) for hour in range(2, ONE_ROUND + 1)
    ]

    assert (others, sum(rest)) == (1, 1)


async def test_drift_is_repaired_by_the_next_flush(world_without_webhooks: WebhookWorld) -> None:
    """No webhook announced that a person had changed our line."""
    customer = CustomerId(await world_without_webhooks.shop.customer())
    await record_usage(world_without_webhooks.services, [delta(customer, "3", "egress-gb")])
    account = Account(
        world_without_webhooks,
        customer,
        await world_without_webhooks.services.ledger.periods.current(customer),
    )
    await account.flush()
    (invoice,) = await account.invoices()
    line = invoice["lines"]["data"][0]["id"]
    await world_without_webhooks.sandbox.dashboard(
        "edit_line", invoice["id"], line=line, quantity_decimal="99"
    )

    for hour in range(ONE_ROUND):
        await reconcile(world_without_webhooks.services.ledger, now_ms=NOW + hour * HOUR_MS)
    await account.flush()

    assert await account.lines() == {"egress-gb": ("3", 6)}
