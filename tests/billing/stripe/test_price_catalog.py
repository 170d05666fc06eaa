"""The price catalog: lookups, freshness, and how often it reads Stripe."""

import asyncio
import itertools
from datetime import UTC, datetime
from typing import Any

import pytest

from billing.budget import Lane
from billing.cache import CachePolicy, entries, open_cache
from billing.errors import ErrorCode
from billing.services import Services
from billing.stripe.price_catalog import RECHECK_SECONDS, PriceCatalog, PriceMissing
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


RECURRING = {"recurring": {"interval": "month"}}
TIERED = {
    "billing_scheme": "tiered",
    "tiers_mode": "volume",
    "tiers": [{"up_to": "inf", "unit_amount": 5}],
}


@pytest.fixture
async def shop(services: Services) -> Shop:
    """A catalog at Stripe."""
    shop = Shop(services)
    await shop.open()
    return shop


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        (RECURRING, "it is recurring"),
        (RECURRING | TIERED, "it is recurring"),
        ({"transform_quantity": {"divide_by": 1000, "round": "up"}}, "it counts packages"),
        ({"custom_unit_amount": {"enabled": True}}, "the customer chooses its amount"),
    ],
    ids=["recurring", "tiered", "package", "custom amount"],
)
async def test_price_that_does_not_multiply_is_refused_with_cause_and_cure(
    shop: Shop, kind: dict[str, Any], cause: str
) -> None:
    """Quantity times unit amount has to be what Stripe bills."""
    price, catalog = await shop.sell(SKU, **kind), shop.services.price_catalog
    refusal = await _refusal(catalog, SKU)

    assert refusal.code is ErrorCode.UNUSABLE_PRICE
    assert price in refusal.message
    assert cause in refusal.message
    assert "one-time price" in refusal.message


async def test_price_of_an_archived_product_is_refused(shop: Shop) -> None:
    """Stripe bills no new line by it, although the price itself is active."""
    price = (await shop.services.price_catalog.by_sku([SKU]))[SKU].id
    body = await shop.services.stripe.read(f"/v1/prices/{price}", lane=Lane.SUPPORT)
    await shop.update(f"products/{body['product']}", active=False)
    refusal = await _refusal(shop.services.price_catalog, SKU)

    assert refusal.code is ErrorCode.UNUSABLE_PRICE
    assert "its product is archived" in refusal.message
    assert "Activate the product" in refusal.message
    found = await shop.services.price_catalog.by_id([price])
    assert not found[price].billable  # but what was counted at it stays

    await shop.update(f"products/{body['product']}", active=True)
    assert SKU in await shop.services.price_catalog.by_sku([SKU])


async def test_archived_price_is_found_by_id_and_not_sold(shop: Shop) -> None:
    """Stripe lists only active prices; the ledger pins the one that was active at first usage."""
    catalog = shop.services.price_catalog
    before = (await catalog.by_sku([SKU]))[SKU]
    price = await shop.archive(SKU)

    assert (await _refusal(catalog, SKU)).code is ErrorCode.UNKNOWN_SKU
    after = (await catalog.by_id([price]))[price]
    assert (after.unit_amount, after.currency) == (before.unit_amount, before.currency)
    assert (after.sku, after.description) == (before.sku, before.description)
    assert (before.billable, after.billable) == (True, False)


async def test_archived_price_is_read_once_until_the_catalog_changes(
    shop: Shop, sandbox: StripeSandbox
) -> None:
    """Every flush and panel of a customer who used it needs it."""
    price, catalog = await shop.archive(SKU), shop.services.price_catalog
    for _ in range(3):
        assert price in await catalog.by_id([price])
        catalog._checked_at = float("-inf")
    assert await sandbox.calls("GET /v1/prices/{price}") == 1

    await shop.update(f"prices/{price}", active=True)
    assert (await catalog.by_id([price]))[price].billable


async def test_known_archived_price_survives_an_outage(shop: Shop, sandbox: StripeSandbox) -> None:
    """Its amount cannot change, so a panel shows the bill while Stripe is unavailable."""
    price, catalog = await shop.archive(SKU), shop.services.price_catalog
    known = await catalog.by_id([price])
    await sandbox.fault("error_500_before", times=50)
    await shop.reload()

    assert await catalog.by_id([price]) == known


async def test_price_that_stripe_does_not_know_is_a_typed_error(shop: Shop) -> None:
    """Never a KeyError."""
    assert await shop.services.price_catalog.by_id(["price_none"]) == {}
    with pytest.raises(PriceMissing) as raised:
        await shop.services.price_catalog.require(["price_none"])

    assert "price_none" in raised.value.message


async def _refusal(catalog: PriceCatalog, sku: str) -> Any:
    requested_at = datetime.now(UTC)
    assert await catalog.by_sku([sku]) == {}
    return catalog.refusal(sku, requested_at)
