"""What Prometheus is told: by a worker, because most calls to Stripe are its, and by the gateway for all."""

import asyncio
import time
from dataclasses import replace
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.routing import Route

from billing.budget import Budget, Lane, Outcome
from billing.budget.policy import BudgetPolicy
from billing.services import Services
from billing.settings import Settings
from billing.stripe_endpoints import Call
from gateway.telemetry import metrics
from tests.support.hearing import World, due
from tests.support.system import free_port
from workers.main import worker_settings


@pytest.mark.usefixtures("services")
async def test_a_worker_shows_its_figures(settings: Settings) -> None:
    """Who is refused by Stripe's limits is seen where it happens."""
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


async def shared_figures(services: Services) -> dict[str, float]:
    """The gateway's figures about all processes, ``name{label}`` to value."""
    app = Starlette(routes=[Route("/metrics", metrics)])
    app.state.services = services
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://g") as client:
        answer = await client.get("/metrics")
    families = text_string_to_metric_families(answer.text)
    return {
        f"{sample.name} {' '.join(sample.labels.values())}".strip(): sample.value
        for family in families
        for sample in family.samples
    }


async def test_the_gateway_shows_how_old_unsynced_usage_is(deaf: World) -> None:
    """The first figure that an operator asks for, over all customers and workers."""
    assert (await shared_figures(deaf.services))["billing_unsynced_oldest_seconds"] == 0
    [customer] = await due(deaf, 1)

    figures = await shared_figures(deaf.services)
    assert 0 < figures["billing_unsynced_oldest_seconds"] < 30
    assert 0 < figures["billing_due_late_seconds in_turn"] < 30
    assert figures["billing_due_late_seconds first"] == 0

    await deaf.flushed(customer)
    figures = await shared_figures(deaf.services)
    assert figures["billing_unsynced_oldest_seconds"] == 0
    assert figures["billing_due_late_seconds in_turn"] == 0
    assert figures["billing_stripe_rate POST /v1/invoices"] > 0
    assert figures["billing_stripe_reads"] > 0


async def test_the_gateway_shows_what_stripes_limiter_taught(
    services: Services, redis: Redis
) -> None:
    """A rate that shrank in some worker is seen here, with the refusals that shrank it."""
    call = Call.of("POST", "/v1/invoices/in_1/pay")
    worker = Budget(redis, BudgetPolicy.of(services.settings))
    async with worker.admission(call, Lane.INTERVAL) as passage:
        passage.outcome = Outcome.LIMITED

    figures = await shared_figures(services)
    allowed = services.settings.stripe_endpoint_rate * services.settings.stripe_share
    assert figures[f"billing_stripe_rate {call.endpoint}"] < allowed
    assert figures[f"billing_stripe_refused {call.endpoint}"] == 1
    assert figures["billing_stripe_waiting interval"] == 0
    assert figures["billing_stripe_limited_until_seconds"] > time.time() - 5


async def test_figures_of_this_process_outlive_redis(services: Services) -> None:
    """Prometheus still gets what there is; what is missing says which server is away."""
    async with Redis.from_url("redis://127.0.0.1:9") as nowhere:
        lost = Budget(nowhere, BudgetPolicy.of(services.settings))
        figures = await shared_figures(replace(services, budget=lost))

    assert "billing_websockets" in figures
    assert "billing_unsynced_oldest_seconds" in figures
    assert "billing_stripe_reads" not in figures
