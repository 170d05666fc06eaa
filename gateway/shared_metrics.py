"""Figures that all processes share, for Prometheus: how old unsynced usage is, and what Stripe's limits leave."""

import asyncio
import time
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from billing.budget.state import BudgetState
from billing.errors import Unavailable
from billing.ledger.queries import Waits
from billing.services import Services

PATIENCE = 2.0  # seconds; Prometheus asks again
FRESH_SECONDS = 1.0
AWAY = (TimeoutError, Unavailable)


class FleetFigures:
    """The figures as text, at most a second old: anybody may ask, and ledger and budget are asked once."""

    def __init__(self) -> None:
        self._asking = asyncio.Lock()
        self._text = b""
        self._stale_at = 0.0

    async def told(self, services: Services) -> bytes:
        """What is known; those figures whose server does not answer are missing, which is worth an alert."""
        async with self._asking:
            if time.monotonic() >= self._stale_at:
                self._text = await _figures(services)
                self._stale_at = time.monotonic() + FRESH_SECONDS
        return self._text


async def _figures(services: Services) -> bytes:
    registry = CollectorRegistry()
    waits, state = await asyncio.gather(
        asyncio.wait_for(services.ledger.waits(), PATIENCE),
        asyncio.wait_for(services.budget.state(), PATIENCE),
        return_exceptions=True,
    )
    for found in (waits, state):
        if isinstance(found, BaseException) and not isinstance(found, AWAY):
            raise found
    if not isinstance(waits, BaseException):
        _tell_waits(waits, registry)
    if not isinstance(state, BaseException):
        _tell_budget(state, registry)
    return generate_latest(registry)


def _tell_waits(waits: list[Waits], registry: CollectorRegistry) -> None:
    Gauge(
        "billing_unsynced_oldest_seconds",
        "Age of the oldest usage that Stripe has not been told of, of customers who are not held.",
        registry=registry,
    ).set(_longest(each.untold for each in waits))
    Gauge(
        "billing_parked",
        "Periods that Stripe refused for good; a person or a webhook wakes them.",
        registry=registry,
    ).set(sum(each.parked for each in waits))
    Gauge(
        "billing_held",
        "Customers whose billing Support, or a void, has stopped.",
        registry=registry,
    ).set(sum(each.held for each in waits))
    Gauge(
        "billing_held_oldest_seconds",
        "How long the oldest of these holds has stood.",
        registry=registry,
    ).set(_longest(each.held_for for each in waits))
    late = Gauge(
        "billing_due_late_seconds",
        "How long a worker has been due to look at somebody: first, or in its turn.",
        ["line"],
        registry=registry,
    )
    late.labels("first").set(_longest(each.first for each in waits))
    late.labels("in_turn").set(_longest(each.due for each in waits))


def _longest(waited: Iterator[int | None]) -> float:
    return max(0, *(each or 0 for each in waited)) / 1000


def _tell_budget(state: BudgetState, registry: CollectorRegistry) -> None:
    def told(name: str, help_: str, label: str, values: Mapping[str, float]) -> None:
        gauge = Gauge(f"billing_stripe_{name}", help_, [label], registry=registry)
        for each, value in values.items():
            gauge.labels(each).set(value)

    told("waiting", "Calls that wait for room.", "lane", dict(state.lanes))
    ends = state.endpoints
    rates = {each.endpoint: each.per_second for each in ends}
    told("rate", "Calls per second allowed for now.", "endpoint", rates)
    refused = {each.endpoint: each.throttled for each in ends}
    told("refused", "Refusals by Stripe's limiter so far.", "endpoint", refused)
    limited = Gauge(
        "billing_stripe_limited_until_seconds",
        "Unix time until which a limiter's refusal or a breaker stands; 0 for none.",
        registry=registry,
    )
    limited.set(state.limited_until.timestamp() if state.limited_until else 0)
    reads = Gauge("billing_stripe_reads", "Reads in 30 days.", registry=registry)
    reads.set(state.reads)
    allowed = Gauge("billing_stripe_read_allowance", "Reads allowed in 30 days.", registry=registry)
    allowed.set(state.read_allowance)
