"""The Stripe sandbox, the webhook endpoint and a worker's steps."""

from collections.abc import AsyncIterator

import pytest

from billing.services import Services
from tests.conftest import WEBHOOK_SECRET
from tests.support.stripe_catalog import Shop
from tests.support.stripe_sandbox import StripeSandbox
from tests.support.webhook_server import WebhookWorld, webhook_server


@pytest.fixture
async def world_without_webhooks(services: Services, sandbox: StripeSandbox) -> WebhookWorld:
    """A product catalog at Stripe whose events are not delivered."""
    shop = Shop(services)
    await shop.open()
    return WebhookWorld(services, sandbox, shop)


@pytest.fixture
async def world(world_without_webhooks: WebhookWorld) -> AsyncIterator[WebhookWorld]:
    """A product catalog at Stripe whose events are delivered to us."""
    async with webhook_server(world_without_webhooks.services) as url:
        await world_without_webhooks.sandbox.register_endpoint(url, WEBHOOK_SECRET)
        yield world_without_webhooks
