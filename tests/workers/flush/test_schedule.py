"""The schedule holds back what nobody asked about, and only that."""

import asyncio
from dataclasses import replace

import pytest
from prometheus_client import REGISTRY

from billing.budget import Lane
from billing.invoicing.flush_policy import Schedule
from billing.stripe import tally
from billing.usage import CustomerId, Period
from billing.usage_ingestion import record_usage
from tests.support.stripe_catalog import delta
from tests.support.webhook_server import World
from workers.flush.flush import flush
from workers.flush.outcome import FlushOutcome
from workers.flush.policy import FlushPorts
from workers.main import flush_ports

DAY = 86_400_000
WRITES = "POST /v1/invoices"


@pytest.fixture
def ports(deaf: World) -> FlushPorts:
    """A worker's ports with a day's patience for less than ten dollars."""
    real = flush_ports(deaf.services)
    patient = replace(real.policy, schedule=Schedule(max_age=DAY, stake=1_000, pause=60_000))
    return replace(real, policy=patient)


async def used(world: World, gigabytes: str) -> tuple[CustomerId, Period]:
    """A customer who used as much, at two cents each."""
    customer = CustomerId(await world.shop.customer())
    report = await record_usage(world.services, [delta(customer, gigabytes, "egress-gb")])
    assert report.accepted == 1
    return customer, await world.services.ledger.open_period(customer)


async def test_a_little_usage_waits_without_a_call_to_stripe(
    deaf: World, ports: FlushPorts
) -> None:
    """Calls are for money; the panel shows the usage anyway."""
    customer, period = await used(deaf, "3")

    with tally() as sent:
        result = await flush(customer, period, ports)

    assert (result.outcome, sent.calls) == (FlushOutcome.WAITING, 0)
    assert 60_000 <= result.delay_ms <= DAY
    assert await deaf.sandbox.calls(WRITES) == 0


async def test_much_usage_is_told(deaf: World, ports: FlushPorts) -> None:
    """Ten dollars are enough."""
    customer, period = await used(deaf, "500")

    assert (await flush(customer, period, ports)).outcome is FlushOutcome.SYNCED


async def test_whoever_asks_does_not_wait(deaf: World, ports: FlushPorts) -> None:
    """A customer about to pay sees a draft that is up to date, also when the wake-up was lost."""
    asked, period = await used(deaf, "3")
    waiting, _ = await used(deaf, "3")

    await deaf.services.ledger.request_sync(asked, "ON_DEMAND")

    assert (await flush(asked, period, ports, lane=Lane.INTERVAL)).outcome is FlushOutcome.SYNCED
    assert (await flush(waiting, period, ports, lane=Lane.CUSTOMER)).outcome is FlushOutcome.SYNCED


async def test_a_thousand_requests_cost_one_flush(deaf: World, ports: FlushPorts) -> None:
    """Somebody leans on the button, or a script does."""
    ledger = deaf.services.ledger
    customer, period = await used(deaf, "3")
    asked = await asyncio.gather(*(ledger.request_sync(customer, "ON_DEMAND") for _ in range(1000)))

    assert (await flush(customer, period, ports)).outcome is FlushOutcome.SYNCED
    assert (await flush(customer, period, ports)).outcome is FlushOutcome.SYNCED

    assert len({sync.id for sync, _ in asked}) == 1
    assert sum(not joined for _, joined in asked) == 1  # who wakes a worker
    assert await deaf.sandbox.calls(WRITES) == 1
    assert await deaf.sandbox.calls("POST /v1/invoices/{invoice}/add_lines") == 1


def calls_of(lane: Lane) -> float:
    """How many calls of *lane* have been admitted by this process."""
    found = [
        sample.value
        for family in REGISTRY.collect()
        for sample in family.samples
        if sample.name == "billing_stripe_calls_total" and sample.labels["lane"] == lane
    ]
    return sum(found)


async def test_a_closing_period_goes_before_those_that_are_open(
    deaf: World,
    ports: FlushPorts,
) -> None:
    """A month must not close late because everybody else's turn came first; nor does it wait for money."""
    customer, period = await used(deaf, "3")
    await deaf.services.ledger.close(customer, period)
    before = calls_of(Lane.CLOSE), calls_of(Lane.INTERVAL)

    await flush(customer, period, ports)

    assert await deaf.sandbox.calls(WRITES) == 1
    assert calls_of(Lane.CLOSE) > before[0]
    assert calls_of(Lane.INTERVAL) == before[1]


async def test_a_comparison_goes_last(deaf: World, ports: FlushPorts) -> None:
    """Reconciling everybody once a week must not keep anybody's usage from Stripe."""
    customer, period = await used(deaf, "500")
    await flush(customer, period, ports)
    await deaf.services.ledger.request_verify(customer, period)
    before = calls_of(Lane.BACKGROUND)

    assert (await flush(customer, period, ports)).outcome is FlushOutcome.SYNCED

    assert calls_of(Lane.BACKGROUND) > before


async def test_an_interrupted_flush_goes_on_at_once(deaf: World, ports: FlushPorts) -> None:
    """What was written ahead is finished first: its key grows old."""
    customer, period = await used(deaf, "500")
    await deaf.sandbox.fault("rate_limited", WRITES, times=1, reason="endpoint-rate")
    assert (await flush(customer, period, ports)).outcome is FlushOutcome.RETRYING
    await record_usage(deaf.services, [delta(customer, "-499", "egress-gb")])

    assert (await flush(customer, period, ports)).outcome is FlushOutcome.SYNCED
