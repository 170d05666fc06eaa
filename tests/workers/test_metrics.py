"""Prometheus metrics: a worker's own, and the gateway's shared ones about all processes."""

import asyncio
import socket
import time
from dataclasses import replace
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis
from starlette.applications import Starlette

from billing.budget import Budget, CallOutcome, Lane
from billing.budget.call import StripeCall
from billing.budget.policy import BudgetPolicy
from billing.ledger.keys import SHARDS
from billing.services import Services
from billing.settings import Settings, StartupError
from billing.usage_ingestion import record_usage
from gateway import shared_metrics
from gateway.shared_metrics import MAX_AGE_SECONDS
from gateway.telemetry import metrics_route
from tests.support.stripe_catalog import delta
from tests.support.system import free_port
from tests.support.webhook_server import WebhookWorld, due
from workers.main import worker_settings


@pytest.mark.usefixtures("services")
async def test_worker_serves_its_metrics(settings: Settings) -> None:
    """Rejections by Stripe's limits show where they happen."""
    port = free_port()
    worker: Any = worker_settings(settings.model_copy(update={"metrics_port": port}))
    ctx: dict[str, Any] = {"redis": worker.redis_pool}
    await asyncio.create_task(worker.on_startup(ctx))
    try:
        async with httpx.AsyncClient() as client:
            text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
    finally:
        await worker.on_shutdown(ctx)

    assert "billing_stripe_wait_seconds" in text


@pytest.mark.parametrize("host", ["127.0.0.1", "nohost.invalid"])
async def test_worker_that_cannot_bind_metrics_port_says_why(settings: Settings, host: str) -> None:
    """A second worker on the machine, or a mistyped address: the error names the setting."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        own = settings.model_copy(update={"metrics_port": port, "host": host})
        worker: Any = worker_settings(own)
        ctx: dict[str, Any] = {"redis": worker.redis_pool}
        with pytest.raises(StartupError) as refused:
            await worker.on_startup(ctx)
        await worker.on_shutdown(ctx)

    assert f"BILLING_METRICS_PORT {port} of BILLING_HOST '{host}'" in str(refused.value)


def scraped(services: Services) -> httpx.AsyncClient:
    """Whoever asks a gateway for its figures."""
    app = Starlette(routes=[metrics_route(None)])
    app.state.services = services
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://g")


async def shared_figures(services: Services) -> dict[str, float]:
    """The gateway's figures about all processes, ``name{label}`` to value."""
    async with scraped(services) as client:
        answer = await client.get("/metrics")
    families = text_string_to_metric_families(answer.text)
    return {
        f"{sample.name} {' '.join(sample.labels.values())}".strip(): sample.value
        for family in families
        for sample in family.samples
    }


async def test_gateway_shows_age_of_unsynced_usage(world_without_webhooks: WebhookWorld) -> None:
    """The most important figure for an operator, over all customers and workers."""
    assert (await shared_figures(world_without_webhooks.services))[
        "billing_unsynced_oldest_seconds"
    ] == 0
    [customer] = await due(world_without_webhooks, 1)

    figures = await shared_figures(world_without_webhooks.services)
    assert 0 < figures["billing_unsynced_oldest_seconds"] < 30
    assert 0 < figures["billing_due_late_seconds routine"] < 30
    assert figures["billing_due_late_seconds priority"] == 0
    for line, alias in (("routine", "in_turn"), ("priority", "first")):
        late, former = (figures[f"billing_due_late_seconds {name}"] for name in (line, alias))
        assert late == former

    await world_without_webhooks.flushed(customer)
    figures = await shared_figures(world_without_webhooks.services)
    assert figures["billing_unsynced_oldest_seconds"] == 0
    assert figures["billing_due_late_seconds routine"] == 0
    assert figures["billing_stripe_rate POST /v1/invoices"] > 0
    assert 0 < figures["billing_stripe_reads"] < figures["billing_stripe_read_allowance"] == 500_000


async def test_gateway_shows_customers_on_hold(world_without_webhooks: WebhookWorld) -> None:
    """A hold is counted separately, and its usage is not late."""
    [customer] = await due(world_without_webhooks, 1)
    await world_without_webhooks.services.ledger.holds.place(customer, "Disputed", "ann")
    await asyncio.sleep(0.01)

    figures = await shared_figures(world_without_webhooks.services)
    assert figures["billing_held"] == 1
    assert 0 < figures["billing_held_oldest_seconds"] < 30
    assert figures["billing_unsynced_oldest_seconds"] == 0

    await asyncio.sleep(MAX_AGE_SECONDS)
    await world_without_webhooks.services.ledger.holds.release(customer)
    figures = await shared_figures(world_without_webhooks.services)
    assert (figures["billing_held"], figures["billing_held_oldest_seconds"]) == (0, 0)
    assert figures["billing_unsynced_oldest_seconds"] > 0


async def test_gateway_shows_customers_whose_usage_is_lost(
    world_without_webhooks: WebhookWorld, redis: Redis
) -> None:
    """The draft shows more than the emptied ledger has."""
    customer, _ = await world_without_webhooks.billed()
    await redis.flushall()
    await record_usage(world_without_webhooks.services, [delta(customer, "1")])
    await world_without_webhooks.flushed(customer)

    figures = await shared_figures(world_without_webhooks.services)
    assert (figures["billing_rewound"], figures["billing_held"]) == (1, 1)
    assert figures["billing_books_unbalanced"] == 1
    assert figures["billing_books_difference usd"] < 0


async def test_gateway_shows_rates_learned_from_stripe(services: Services, redis: Redis) -> None:
    """A rate that a worker lowered shows here, with the 429s that lowered it."""
    call = StripeCall.from_request("POST", "/v1/invoices/in_1/pay")
    worker = Budget(redis, BudgetPolicy.from_settings(services.settings))
    async with worker.admission(call, Lane.INTERVAL) as permit:
        permit.outcome = CallOutcome.LIMITED

    figures = await shared_figures(services)
    allowed = services.settings.stripe_endpoint_rate * services.settings.stripe_share
    assert figures[f"billing_stripe_rate {call.endpoint}"] < allowed
    assert figures[f"billing_stripe_refused {call.endpoint}"] == 1
    assert figures["billing_stripe_waiting interval"] == 0
    assert figures["billing_stripe_limited_until_seconds"] > time.time() - 5


async def test_process_metrics_survive_a_redis_outage(services: Services) -> None:
    """Prometheus gets what there is; the missing metrics show which server is down."""
    async with Redis.from_url("redis://127.0.0.1:9") as nowhere:
        lost = Budget(nowhere, BudgetPolicy.from_settings(services.settings))
        figures = await shared_figures(replace(services, budget=lost))

    assert "billing_websockets" in figures
    assert "billing_unsynced_oldest_seconds" in figures
    assert "billing_stripe_reads" not in figures


async def test_fifty_scrapes_share_one_query_until_it_is_too_old(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each query runs a script in every shard, once a second at most."""
    assert MAX_AGE_SECONDS == 1
    monkeypatch.setattr(shared_metrics, "MAX_AGE_SECONDS", 3600)  # this machine may be busy
    await services.ledger.due.backlogs()  # so that no script has to be loaded
    redis = Redis.from_url(services.settings.redis_url)
    async with redis, scraped(services) as client:
        await redis.config_resetstat()
        await asyncio.gather(*(client.get("/metrics") for _ in range(50)))
        calls = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
        assert calls == SHARDS

    monkeypatch.setattr(shared_metrics, "MAX_AGE_SECONDS", 0)
    async with redis, scraped(services) as client:
        for _ in range(2):
            await client.get("/metrics")
        assert (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"] == 3 * SHARDS
