"""The dispatcher claims due periods up to its slots and Stripe's budget, outside the job queue."""

import asyncio
from dataclasses import replace
from typing import Any

from redis.asyncio import Redis

from billing.budget import Budget, Lane
from billing.budget.call import StripeCall
from billing.budget.policy import BudgetPolicy, RateLimit
from billing.job_queue import QUEUE_NAME
from billing.ledger import Ledger
from billing.redis_clients import awaited
from tests.support.ledger import Proxy
from tests.support.wait import wait_until
from tests.support.webhook_server import WebhookWorld, due
from workers.dispatcher import MAX_QUEUE_SECONDS, SLOTS, WorkerState, dispatch
from workers.flush.policy import FlushContext

DRAFTS = "POST /v1/invoices"


def gated(ledger: Ledger, gate: asyncio.Event) -> Any:
    """Return *ledger* behind *gate*: no flush starts before it opens."""

    async def acquire(*args: Any, **options: Any) -> Any:
        await gate.wait()
        return await ledger.leases.acquire(*args, **options)

    return Proxy(ledger, leases=Proxy(ledger.leases, acquire=acquire))


async def test_dispatcher_claims_no_more_than_its_slots(
    world_without_webhooks: WebhookWorld,
) -> None:
    """The rest stays due, for this or another worker."""
    gate = asyncio.Event()
    ledger = gated(world_without_webhooks.services.ledger, gate)
    worker = WorkerState(
        world_without_webhooks.services,
        replace(FlushContext.from_services(world_without_webhooks.services), ledger=ledger),
    )
    await due(world_without_webhooks, SLOTS + 3)

    assert await dispatch(worker)
    assert len(worker.flushes) == SLOTS
    assert not await dispatch(worker)
    gate.set()
    await asyncio.gather(*worker.flushes)
    assert await world_without_webhooks.sandbox.calls(DRAFTS) == SLOTS

    assert await dispatch(worker)
    await asyncio.gather(*worker.flushes)
    assert await world_without_webhooks.sandbox.calls(DRAFTS) == SLOTS + 3


async def test_routine_flushes_bypass_the_queue(
    world_without_webhooks: WebhookWorld, redis: Redis
) -> None:
    """A queued job is one that a panel waits for; routine flushes must not delay it."""
    gate = asyncio.Event()
    ledger = gated(world_without_webhooks.services.ledger, gate)
    worker = WorkerState(
        world_without_webhooks.services,
        replace(FlushContext.from_services(world_without_webhooks.services), ledger=ledger),
    )
    await due(world_without_webhooks, 3)

    await dispatch(worker)

    assert len(worker.flushes) == 3
    assert await awaited(redis.zcard(QUEUE_NAME)) == 0
    gate.set()
    await asyncio.gather(*worker.flushes)


async def test_closing_period_has_slots_of_its_own(world_without_webhooks: WebhookWorld) -> None:
    """Closing periods and routine flushes never delay each other."""
    gate = asyncio.Event()
    ledger = gated(world_without_webhooks.services.ledger, gate)
    worker = WorkerState(
        world_without_webhooks.services,
        replace(FlushContext.from_services(world_without_webhooks.services), ledger=ledger),
    )
    last = (await due(world_without_webhooks, SLOTS + 1))[-1]
    period = await world_without_webhooks.services.ledger.periods.current(last)
    await world_without_webhooks.services.ledger.periods.close(last, period)

    await dispatch(worker)

    assert (len(worker.priority), len(worker.routine)) == (1, SLOTS)
    gate.set()
    await asyncio.gather(*worker.flushes)
    assert (
        await world_without_webhooks.services.ledger.periods.snapshot(last, period)
    ).invoice is not None


async def test_dispatcher_claims_nothing_while_stripe_budget_is_full(
    world_without_webhooks: WebhookWorld, redis: Redis
) -> None:
    """Claimed periods would only time out with their leases taken; closing periods use another lane and are claimed."""
    policy = replace(
        BudgetPolicy.from_settings(world_without_webhooks.services.settings),
        endpoint=RateLimit(1, 2),
    )
    budget = Budget(redis, policy)
    services = replace(world_without_webhooks.services, budget=budget)
    worker = WorkerState(services, FlushContext.from_services(services))
    _, closing = await due(world_without_webhooks, 2)
    line = [asyncio.create_task(_wait(budget, f"in_{n}")) for n in range(5)]

    async def crowded() -> bool:
        return (await budget.backlog())[Lane.INTERVAL] > MAX_QUEUE_SECONDS

    await wait_until(crowded, "calls wait")

    assert not await dispatch(worker)
    assert not worker.flushes
    await world_without_webhooks.services.ledger.periods.close(
        closing, await world_without_webhooks.services.ledger.periods.current(closing)
    )
    assert await dispatch(worker)
    assert (len(worker.priority), len(worker.routine)) == (1, 0)
    await asyncio.gather(*worker.flushes)

    for waiting in line:
        waiting.cancel()
    await asyncio.gather(*line, return_exceptions=True)


async def _wait(budget: Budget, invoice: str) -> None:
    async with budget.admission(
        StripeCall.from_request("POST", f"/v1/invoices/{invoice}/pay"), Lane.INTERVAL
    ):
        await asyncio.Event().wait()
