"""What the gateway knows of Stripe's prices, and how long it believes it."""

import asyncio
import itertools

from billing.budget import Lane
from billing.cache import CachePolicy, entries, open_cache
from billing.services import Services
from billing.stripe.price_catalog import RECHECK_SECONDS, Catalogue
from tests.support.stripe_catalog import Shop
from tests.support.stripe_sandbox import StripeSandbox
from tests.support.system import until

SKU = "machine-seconds"


async def test_a_renamed_product_shows_under_its_new_name(
    services: Services, sandbox: StripeSandbox
) -> None:
    """A price's amount never changes, its product's name does; while Stripe is away the old one stands."""
    await Shop(services).open()
    moments = itertools.chain([0.0, 0.0], itertools.count(RECHECK_SECONDS, RECHECK_SECONDS))
    catalogue = Catalogue(services.stripe, services.cache, lambda: next(moments))
    price = (await catalogue.by_sku([SKU]))[SKU]
    body = await services.stripe.read(f"/v1/prices/{price.id}", lane=Lane.SUPPORT)
    await services.stripe.write(
        f"/v1/products/{body['product']}", {"name": "Machines"}, key="rename", lane=Lane.SUPPORT
    )
    await services.cache.forget(entries.CATALOGUE)
    assert (await catalogue.by_id([price.id]))[price.id] == price  # looked at this very second

    await sandbox.fault("error_500_before", "GET /v1/prices", times=20)
    assert (await catalogue.by_id([price.id]))[price.id] == price
    await sandbox.no_faults()

    async def renamed() -> bool:
        return (await catalogue.by_id([price.id]))[price.id].description == "Machines"

    await until(renamed, "the new name shows")


async def test_usage_that_streams_in_leaves_stripes_prices_alone(
    services: Services, sandbox: StripeSandbox, redis_url: str
) -> None:
    """A thousand prices are ten reads of a month's ration each time; a change comes by webhook, at once."""
    await Shop(services).open()
    moments = itertools.count(0, RECHECK_SECONDS)
    async with open_cache(redis_url, CachePolicy(fresh=0.05)) as cache:
        catalogue = Catalogue(services.stripe, cache, lambda: next(moments))
        for _ in range(5):
            await catalogue.by_sku([SKU])
            await asyncio.sleep(0.06)
        assert await sandbox.calls("GET /v1/prices") == 1

        await cache.forget(entries.CATALOGUE)
        await catalogue.by_sku([SKU])

    assert await sandbox.calls("GET /v1/prices") == 2
