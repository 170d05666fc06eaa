"""Once a week everybody is compared with Stripe, a shard of them at a time."""

from itertools import count, islice

import pytest
from redis.asyncio import Redis

from billing.errors import LedgerUnavailable
from billing.ledger import keys
from billing.usage import CustomerId, Period
from billing.usage_ingestion import record_usage
from tests.support.account import Account
from tests.support.stripe_catalog import delta
from tests.support.webhook_server import World
from workers.reconcile import HOUR_MS, reconcile

NOW = 1_795_000_000_000
NOVEMBER = Period(2026, 11)
ONE_ROUND, WEEK = keys.SHARDS, 7 * 24


async def opened(redis: Redis, shard: int, customers: int) -> list[str]:
    """So many customers of *shard*, each with an open period."""
    names = (f"cus_{n}" for n in count())
    of_shard = (each for each in names if keys.shard_of(CustomerId(each)) == shard)
    crowd = list(islice(of_shard, customers))
    await redis.zadd(keys.open_periods(shard), {f"{each}|{NOVEMBER}": 1 for each in crowd})
    return crowd


async def test_every_open_period_has_its_turn(deaf: World) -> None:
    """One shard an hour, and none twice before all had theirs."""
    for n in range(5):
        customer = CustomerId(await deaf.shop.customer(f"shop-{n}"))
        await record_usage(deaf.services, [delta(customer, "1")])

    asked = [
        await reconcile(deaf.services.ledger, now_ms=NOW + hour * HOUR_MS)
        for hour in range(2 * ONE_ROUND)
    ]

    assert (sum(asked[:ONE_ROUND]), sum(asked)) == (5, 5)


async def test_nobody_waits_longer_than_a_week(deaf: World) -> None:
    """Also when no worker ran for two days in between."""
    ledger = deaf.services.ledger
    away = range(2 * WEEK, 2 * WEEK + 48)

    for hour in range(4 * WEEK):
        now_ms = NOW + hour * HOUR_MS
        if hour not in away:
            await reconcile(ledger, now_ms=now_ms)
            last = await ledger.compared()
            waits = max(now_ms - each for each in last.values()) / HOUR_MS
            assert len(last) == min(hour + 1, keys.SHARDS)
            assert waits <= WEEK + (48 if hour >= away.start else 0)
    assert waits <= WEEK


async def test_a_crowded_shard_is_gone_through_to_its_end(deaf: World, redis: Redis) -> None:
    """More customers than one page of Redis's answers holds; none is left out for the week."""
    crowd = await opened(redis, 7, 2_500)

    pages = [page async for page in deaf.services.ledger.open_periods(7)]

    assert {customer for page in pages for customer, _ in page} == set(crowd)


async def test_a_crowd_is_asked_for_page_by_page(deaf: World, redis: Redis) -> None:
    """A write to disk for each customer would take longer than a job may, and the last shards would wait for ever."""
    await opened(redis, 0, 5_000)
    before = (await redis.info("stats"))["total_reads_processed"]

    asked = await reconcile(deaf.services.ledger, now_ms=NOW)

    took = (await redis.info("stats"))["total_reads_processed"] - before
    assert asked >= 5_000
    assert took < 1_000


async def test_a_shard_that_cannot_be_asked_for_holds_up_no_other(
    deaf: World, redis: Redis
) -> None:
    """It comes again, and is done as soon as what ailed it is cured."""
    ledger = deaf.services.ledger
    [spoilt] = await opened(redis, 0, 1)
    await opened(redis, 1, 1)
    await redis.set(keys.customer(CustomerId(spoilt)), "no hash")
    await redis.set(keys.period(CustomerId(spoilt), NOVEMBER), "no hash")

    with pytest.raises(LedgerUnavailable):
        await reconcile(ledger, now_ms=NOW)
    others = await reconcile(ledger, now_ms=NOW + HOUR_MS)
    await redis.delete(keys.customer(CustomerId(spoilt)), keys.period(CustomerId(spoilt), NOVEMBER))
    rest = [
        await reconcile(ledger, now_ms=NOW + hour * HOUR_MS) for hour in range(2, ONE_ROUND + 1)
    ]

    assert (others, sum(rest)) == (1, 1)


async def test_what_has_drifted_is_healed_by_the_next_flush(deaf: World) -> None:
    """No webhook told us that a person had changed our line."""
    customer = CustomerId(await deaf.shop.customer())
    await record_usage(deaf.services, [delta(customer, "3", "egress-gb")])
    account = Account(deaf, customer, await deaf.services.ledger.open_period(customer))
    await account.flush()
    (invoice,) = await account.invoices()
    line = invoice["lines"]["data"][0]["id"]
    await deaf.sandbox.dashboard("edit_line", invoice["id"], line=line, quantity_decimal="99")

    for hour in range(ONE_ROUND):
        await reconcile(deaf.services.ledger, now_ms=NOW + hour * HOUR_MS)
    await account.flush()

    assert await account.lines() == {"egress-gb": ("3", 6)}
