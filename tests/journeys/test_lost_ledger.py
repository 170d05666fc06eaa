"""The procedure of docs/running.md, "After losing a ledger", on a server that came back empty."""

from datetime import UTC, datetime

import pytest
from redis.asyncio import Redis

from billing.services import Services, open_services
from billing.settings import Environment, Settings, StartupError
from billing.usage import CustomerId, Period
from tests.support.account import Account
from tests.support.ledger_command import run_command
from tests.support.stripe_catalog import Shop
from tests.support.stripe_sandbox import StripeSandbox
from tests.support.webhook_server import WebhookWorld


async def customers(services: Services, sandbox: StripeSandbox, shop: Shop) -> list[Account]:
    """Two customers with drafts of ten units, in the current month."""
    world, month = WebhookWorld(services, sandbox, shop), Period.containing(datetime.now(UTC))
    accounts = [Account(world, CustomerId(await shop.customer()), month) for _ in range(2)]
    for account in accounts:
        await account.use("10")
        await account.flush()
    return accounts


async def test_emptied_ledger_is_recovered_by_producers_and_an_operator(
    settings: Settings, services: Services, sandbox: StripeSandbox, redis: Redis, redis_url: str
) -> None:
    """No bill is lowered meanwhile; one customer's usage is sent again, the other's is given up by name."""
    shop = Shop(services)
    await shop.open()
    replayed, lost = await customers(services, sandbox, shop)
    await redis.flushall()
    urls = {"queue_url": redis_url, "cache_url": redis_url}
    production = settings.model_copy(update={"environment": Environment.PRODUCTION, **urls})

    with pytest.raises(StartupError, match="has no ledger"):
        async with open_services(production):
            pass
    created, _ = await run_command(redis_url, "create")
    async with open_services(production) as after:
        world = WebhookWorld(after, sandbox, Shop(after))
        replayed, lost = (
            Account(world, account.customer, account.period) for account in (replayed, lost)
        )
        for account in (replayed, lost):
            await account.use("1")
            await account.flush()
        _, listed = await run_command(redis_url, "rewound")
        drafts = [await account.lines() for account in (replayed, lost)]

        await replayed.use("9")
        await replayed.flush()
        _, accepted = await run_command(redis_url, "accept-loss", "--yes", "--reason", "no copy")
        await lost.flush()
        _, rest = await run_command(redis_url, "rewound")

        assert created == 0
        assert "Customers with lost usage: 2." in listed
        assert drafts == [{"egress-gb": ("10", 20)}] * 2
        assert (await replayed.lines(), await lost.lines()) == (
            {"egress-gb": ("10", 20)},
            {"egress-gb": ("1", 2)},
        )
        assert f"{lost.customer} is billed again." in accepted
        assert replayed.customer not in accepted
        assert "Customers with lost usage: 0." in rest
