"""Stripe, the webhook door and a worker's steps."""

from collections.abc import AsyncIterator

import pytest

from billing.services import Services
from tests.conftest import WEBHOOK_SECRET
from tests.support.stripe_catalog import Shop
from tests.support.stripe_sandbox import StripeSandbox
from tests.support.webhook_server import World, hearing


@pytest.fixture
async def deaf(services: Services, sandbox: StripeSandbox) -> World:
    """A shop at Stripe that nobody listens to."""
    shop = Shop(services)
    await shop.open()
    return World(services, sandbox, shop)


@pytest.fixture
async def world(deaf: World) -> AsyncIterator[World]:
    """A shop at Stripe, whose events are delivered to us."""
    async with hearing(deaf.services) as url:
        await deaf.sandbox.hear(url, WEBHOOK_SECRET)
        yield deaf
