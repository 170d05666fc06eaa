"""The webhook endpoint over a real ledger and a real cache, with deliveries signed as Stripe's."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import httpx
import orjson
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from starlette.applications import Starlette
from stripe import WebhookSignature

from billing.cache import Cache, open_cache
from billing.events import Inbox
from billing.settings import Settings
from webhooks.endpoint import PATH, webhook_route

OLD_SECRET, SECRET = "whsec_the_old_secret", "whsec_the_new_secret"


def invoice_event(event_id: str = "evt_1", **more: Any) -> dict[str, Any]:
    """An ``invoice.paid`` as Stripe renders it in our version."""
    invoice = {"id": "in_1", "object": "invoice", "customer": "cus_1", "email": "ann@example.com"}
    return {
        "id": event_id,
        "object": "event",
        "type": "invoice.paid",
        "api_version": "2026-10-28.endive",
        "data": {"object": {**invoice, "metadata": {"gw_period": "2026-11"}}},
        "request": {"id": None, "idempotency_key": None},
        **more,
    }


def signature(body: bytes, secret: str = SECRET, at: float | None = None) -> str:
    """The header with which Stripe signs *body*."""
    moment = int(time.time() if at is None else at)
    header: str = WebhookSignature.generate_signature_header(
        body.decode("utf-8", "surrogateescape"), secret, moment
    )
    return header


@dataclass
class Endpoint:
    """The endpoint, called over HTTP."""

    http: httpx.AsyncClient
    inbox: Inbox
    cache: Cache

    async def deliver(self, event: object, **signing: Any) -> httpx.Response:
        """Deliver *event* (JSON, or bytes as they are) signed as Stripe would."""
        body = event if isinstance(event, bytes) else orjson.dumps(event)
        return await self.http.post(
            PATH, content=body, headers={"Stripe-Signature": signature(body, **signing)}
        )

    async def stored(self) -> list[str]:
        """The ids of all events in the inbox, newest first."""
        return [event.id for event in (await self.inbox.page(100)).items]


@pytest.fixture
async def webhook(redis: Redis, redis_url: str) -> AsyncIterator[Endpoint]:
    """The endpoint on an empty inbox."""
    async with open_endpoint(redis, redis_url, "sk_test_0123456789abcdef") as opened:
        yield opened


@asynccontextmanager
async def open_endpoint(
    redis: Redis, redis_url: str, stripe_api_key: str
) -> AsyncIterator[Endpoint]:
    """The endpoint of a gateway that has *stripe_api_key*."""
    settings = Settings(
        stripe_api_key="sk_test_0123456789abcdef",
        stripe_webhook_secrets=(OLD_SECRET, SECRET),
        redis_url=redis_url,
        jwt_secret="a-secret-for-the-tests-only-0123456789",
    ).model_copy(update={"stripe_api_key": SecretStr(stripe_api_key)})
    app = Starlette(routes=[webhook_route()])
    async with open_cache(redis_url) as cache:
        inbox = Inbox(redis)
        app.state.services = SimpleNamespace(settings=settings, inbox=inbox, cache=cache)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
            yield Endpoint(http, inbox, cache)
