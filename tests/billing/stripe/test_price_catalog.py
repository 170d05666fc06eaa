"""The price catalog: lookups, freshness, and how often it reads Stripe."""

import asyncio
import itertools

from billing.budget import Lane
from billing.cache import CachePolicy, entries, open_cache
from billing.services import Services
from billing.stripe.price_catalog import RECHECK_SECONDS, PriceCatalog
from billing.stripe.reader import StripeReader
from tests.support.stripe_catalog import Shop
from tests.support.stripe_sandbox import StripeSandbox
from tests.support.wait import wait_until

SKU = "machine-seconds"


async def test_renamed_product_shows_its_new_name(
    services: Services, sandbox: StripeSandbox
) -> None:
    """A price is immutable but for its product's name; while Stripe is unavailable the old name is used."""
    await Shop(services).open()
    times = itertools.chain([0.0, 0.0], itertools.count(RECHECK_SECONDS, RECHECK_SECONDS))
    catalog = PriceCatalog(services.stripe_reader, lambda: next(times))
    price = (await catalog.by_sku([SKU]))[SKU]
    body = await services.stripe.read(f"/v1/prices/{price.id}", lane=Lane.SUPPORT)
    await services.stripe.write(
        f"/v1/products/{body['product']}", {"name": "Machines"}, key="rename", lane=Lane.SUPPORT
    )
    await services.cache.invalidate(entries.PRICE_CATALOG)
    assert (await catalog.by_id([price.id]))[price.id] == price  # checked within the last second

    await sandbox.fault("error_500_before", "GET /v1/prices", times=20)
    assert (await catalog.by_id([price.id]))[price.id] == price
    await sandbox.clear_faults()

    async def renamed() -> bool:
        return (await catalog.by_id([price.id]))[price.id].description == "Machines"

    await wait_until(renamed, "the new name shows")


async def test_ingestion_does_not_reread_prices(
    services: Services, sandbox: StripeSandbox, redis_url: str
) -> None:
    """A thousand prices are ten reads of a month's ration each time; a change comes by webhook, at once."""
    await Shop(services).open()
    times = itertools.count(0, RECHECK_SECONDS)
    async with open_cache(redis_url, CachePolicy(fresh_ttl=0.05)) as cache:
        catalog = PriceCatalog(StripeReader(services.stripe, cache), lambda: next(times))
        for _ in range(5):
            await catalog.by_sku([SKU])
            await asyncio.sleep(0.06)
        assert await sandbox.calls("GET /v1/prices") == 1

        await cache.invalidate(entries.PRICE_CATALOG)
        await catalog.by_sku([SKU])

    assert await sandbox.calls("GET /v1/prices") == 2
