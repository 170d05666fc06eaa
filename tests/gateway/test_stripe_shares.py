"""On whose behalf a request calls Stripe."""

import asyncio
import time

import pytest
from redis.asyncio import Redis

from billing.budget import Lane
from billing.budget.state import CALLER
from billing.errors import ShareUsed
from billing.redis_clients import awaited
from billing.services import Services
from billing.stripe import resources
from gateway.billing_extension import measure_billing
from resolvers.context import Context, Role, Viewer
from tests.support.stripe_catalog import Shop

DAY = 86_400


@pytest.fixture
async def shop(services: Services) -> Shop:
    """Three prices at Stripe."""
    opened = Shop(services)
    await opened.open()
    return opened


def panel(customer: str, subject: str = "panel") -> Viewer:
    """Somebody of *customer*."""
    return Viewer(subject, Role.CUSTOMER, frozenset({customer}))


async def look(services: Services, viewer: Viewer, customer: str) -> None:
    """Read *customer* and the prices in an operation by *viewer*."""
    with measure_billing(Context.for_viewer(viewer, services)):
        await services.stripe_reader.get(resources.customer(customer), Lane.CUSTOMER)
        await services.price_catalog.by_sku(["egress-gb"])


async def reads(redis: Redis) -> dict[str, object]:
    """The reads of today by caller."""
    keys = [key.decode() async for key in redis.scan_iter(f"{CALLER}*")]
    return {key.removeprefix(CALLER): await awaited(redis.hget(key, "reads")) for key in keys}


async def test_people_of_one_customer_share_and_prices_are_everybodys(
    services: Services, shop: Shop, redis: Redis
) -> None:
    """The customer's reads are counted once for all its people, those of prices and of Support for nobody."""
    customer = await shop.customer()
    for viewer in (panel(customer), panel(customer, "colleague"), Viewer("agent", Role.SUPPORT)):
        await services.cache.invalidate(customer)
        await look(services, viewer, customer)

    assert await reads(redis) == {panel(customer).caller: b"2"}


async def test_refusal_of_one_caller_is_not_that_of_who_joined_its_load(
    services: Services, shop: Shop, redis: Redis
) -> None:
    """Two callers ask for the same object at once, one of them often; only that one, without reads left, is refused."""
    customer = await shop.customer()
    spent, other = panel(customer), Viewer("panel", Role.CUSTOMER, frozenset({customer, "cus_2"}))
    today = {"day": int(time.time() // DAY), "reads": 1_000_000}
    await awaited(redis.hset(CALLER + spent.caller, mapping=today))

    results = await asyncio.gather(
        *(look(services, viewer, customer) for viewer in (spent, spent, spent, other)),
        return_exceptions=True,
    )

    assert [type(result) for result in results] == [ShareUsed, ShareUsed, ShareUsed, type(None)]


async def test_last_known_data_are_shown_to_who_has_no_reads_left(
    services: Services, shop: Shop, redis: Redis
) -> None:
    """The panel is stale as in an outage."""
    customer = await shop.customer()
    await look(services, panel(customer), customer)
    today = {"day": int(time.time() // DAY), "reads": 1_000_000}
    await awaited(redis.hset(CALLER + panel(customer).caller, mapping=today))
    await services.cache.invalidate(customer)

    await look(services, panel(customer), customer)

    assert await reads(redis) == {panel(customer).caller: b"1000000"}
