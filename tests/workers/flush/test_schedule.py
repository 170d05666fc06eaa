"""The schedule delays routine flushes, and only those."""

import asyncio
from dataclasses import replace

import pytest
from prometheus_client import REGISTRY

from billing.budget import Lane
from billing.invoicing.flush_schedule import FlushSchedule
from billing.stripe import count_calls
from billing.usage import CustomerId, Period
from billing.usage_ingestion import record_usage
from tests.support.stripe_catalog import delta
from tests.support.webhook_server import WebhookWorld
from workers.flush.flush import flush
from workers.flush.outcome import FlushOutcome
from workers.flush.policy import FlushContext

DAY = 86_400_000
WRITES = "POST /v1/invoices"


@pytest.fixture
def context(world_without_webhooks: WebhookWorld) -> FlushContext:
    """A flush context that delays less than ten dollars for up to a day."""
    real = FlushContext.from_services(world_without_webhooks.services)
    policy = replace(
        real.policy,
        schedule=FlushSchedule(max_age_ms=DAY, amount_threshold=1_000, min_delay_ms=60_000),
    )
    return replace(real, policy=policy)


async def record(world: WebhookWorld, gigabytes: str) -> tuple[CustomerId, Period]:
    """Record *gigabytes* of a new customer, at two cents each; return the customer and the period."""
    customer = CustomerId(await world.shop.customer())
    report = await record_usage(world.services, [delta(customer, gigabytes, "egress-gb")])
    assert report.accepted == 1
    return customer, await world.services.ledger.periods.current(customer)


async def test_small_usage_waits_without_a_call(
    world_without_webhooks: WebhookWorld, context: FlushContext
) -> None:
    """The panel shows the usage anyway."""
    customer, period = await record(world_without_webhooks, "3")

    with count_calls() as sent:
        result = await flush(customer, period, context)

    assert (result.outcome, sent.calls) == (FlushOutcome.WAITING, 0)
    assert 60_000 <= result.delay_ms <= DAY
    assert await world_without_webhooks.sandbox.calls(WRITES) == 0


async def test_large_usage_is_flushed(
    world_without_webhooks: WebhookWorld, context: FlushContext
) -> None:
    """Ten dollars are enough."""
    customer, period = await record(world_without_webhooks, "500")

    assert (await flush(customer, period, context)).outcome is FlushOutcome.SYNCED


async def test_requested_sync_does_not_wait(
    world_without_webhooks: WebhookWorld, context: FlushContext
) -> None:
    """A customer about to pay sees an up-to-date draft, even if the job was lost."""
    requested, period = await record(world_without_webhooks, "3")
    waiting, _ = await record(world_without_webhooks, "3")

    await world_without_webhooks.services.ledger.syncs.request(requested, "ON_DEMAND")

    assert (
        await flush(requested, period, context, lane=Lane.INTERVAL)
    ).outcome is FlushOutcome.SYNCED
    assert (
        await flush(waiting, period, context, lane=Lane.CUSTOMER)
    ).outcome is FlushOutcome.SYNCED


async def test_thousand_sync_requests_cost_one_flush(
    world_without_webhooks: WebhookWorld, context: FlushContext
) -> None:
    """A person holds the button down, or a script does."""
    ledger = world_without_webhooks.services.ledger
    customer, period = await record(world_without_webhooks, "3")
    requests = await asyncio.gather(
        *(ledger.syncs.request(customer, "ON_DEMAND") for _ in range(1000))
    )

    assert (await flush(customer, period, context)).outcome is FlushOutcome.SYNCED
    assert (await flush(customer, period, context)).outcome is FlushOutcome.SYNCED

    assert len({sync.id for sync, _ in requests}) == 1
    assert sum(not joined for _, joined in requests) == 1  # only this one enqueues a job
    assert await world_without_webhooks.sandbox.calls(WRITES) == 1
    assert await world_without_webhooks.sandbox.calls("POST /v1/invoices/{invoice}/add_lines") == 1


def calls_of(lane: Lane) -> float:
    """Return the number of calls of *lane* that this process admitted."""
    counts = [
        sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name == "billing_stripe_calls_total" and sample.labels["lane"] == lane
    ]
    return sum(counts)


async def test_closing_period_has_priority_over_open_ones(
    world_without_webhooks: WebhookWorld,
    context: FlushContext,
) -> None:
    """Routine flushes must not delay it, and it does not wait for an amount."""
    customer, period = await record(world_without_webhooks, "3")
    await world_without_webhooks.services.ledger.periods.close(customer, period)
    before = calls_of(Lane.CLOSE), calls_of(Lane.INTERVAL)

    await flush(customer, period, context)

    assert await world_without_webhooks.sandbox.calls(WRITES) == 1
    assert calls_of(Lane.CLOSE) > before[0]
    assert calls_of(Lane.INTERVAL) == before[1]


async def test_verify_has_the_lowest_priority(
    world_without_webhooks: WebhookWorld, context: FlushContext
) -> None:
    """The weekly reconciliation must not delay usage."""
    customer, period = await record(world_without_webhooks, "500")
    await flush(customer, period, context)
    await world_without_webhooks.services.ledger.periods.request_verify(customer, period)
    before = calls_of(Lane.BACKGROUND)

    assert (await flush(customer, period, context)).outcome is FlushOutcome.SYNCED

    assert calls_of(Lane.BACKGROUND) > before


async def test_interrupted_flush_continues_at_once(
    world_without_webhooks: WebhookWorld, context: FlushContext
) -> None:
    """Its stored requests are finished first: their keys expire."""
    customer, period = await record(world_without_webhooks, "500")
    await world_without_webhooks.sandbox.fault(
        "rate_limited", WRITES, times=1, reason="endpoint-rate"
    )
    assert (await flush(customer, period, context)).outcome is FlushOutcome.RETRYING
    await record_usage(world_without_webhooks.services, [delta(customer, "-499", "egress-gb")])

    assert (await flush(customer, period, context)).outcome is FlushOutcome.SYNCED
