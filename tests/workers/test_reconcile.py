"""Once a week everybody is compared with Stripe, a seventh of them each day."""

from itertools import count, islice

from redis.asyncio import Redis

from billing import keys
from billing.metering import record_usage
from billing.usage import CustomerId, Period
from tests.support.account import Account
from tests.support.hearing import World
from tests.support.shop import delta
from workers.reconcile import DAY_MS, DAYS, reconcile


async def test_within_a_week_every_open_period_has_its_day(deaf: World) -> None:
    """One day each, and no day twice."""
    ledger = deaf.services.ledger
    for n in range(5):
        customer = CustomerId(await deaf.shop.customer(f"shop-{n}"))
        await record_usage(deaf.services, [delta(customer, "1")])
    now_ms = (await ledger.peek(customer, await ledger.open_period(customer))).now_ms

    asked = [
        await reconcile(ledger, range(64), now_ms=now_ms + day * DAY_MS) for day in range(DAYS)
    ]

    assert sum(asked) == 5


async def test_a_crowded_shard_is_gone_through_to_its_end(deaf: World) -> None:
    """More customers than one page of Redis's answers holds; none is left out for the week."""
    ledger, period = deaf.services.ledger, Period(2026, 11)
    names = (f"cus_{n}" for n in count())
    crowd = list(islice((each for each in names if keys.shard_of(CustomerId(each)) == 7), 2_500))
    members = {f"{each}|{period}": 1 for each in crowd}
    async with Redis.from_url(deaf.services.settings.redis_url) as redis:
        await redis.zadd(keys.open_periods(7), members)

    found = {customer async for customer, _ in ledger.open_periods(7)}

    assert found == set(crowd)


async def test_what_has_drifted_is_healed_by_the_next_flush(deaf: World) -> None:
    """No webhook told us that a person had changed our line."""
    customer = CustomerId(await deaf.shop.customer())
    await record_usage(deaf.services, [delta(customer, "3", "egress-gb")])
    account = Account(deaf, customer, await deaf.services.ledger.open_period(customer))
    await account.flush()
    (invoice,) = await account.invoices()
    line = invoice["lines"]["data"][0]["id"]
    await deaf.sandbox.dashboard("edit_line", invoice["id"], line=line, quantity_decimal="99")

    now_ms = (await account.peek()).now_ms
    for day in range(DAYS):
        await reconcile(deaf.services.ledger, range(64), now_ms=now_ms + day * DAY_MS)
    await account.flush()

    assert await account.lines() == {"egress-gb": ("3", 6)}
