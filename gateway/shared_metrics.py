"""Prometheus metrics that all processes share, read from Redis: the backlog and Stripe's budget."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TypeVar

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from billing.budget.state import BudgetState
from billing.errors import Unavailable
from billing.ledger.due import Backlog
from billing.services import Services

TIMEOUT_SECONDS = 2.0  # Prometheus tries again
MAX_AGE_SECONDS = 1.0
T = TypeVar("T")


class SharedMetrics(Collector):
    """Renders the metrics; frequent and concurrent scrapes share one read of ledger and budget."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._metrics: list[Metric] = []
        self._lock = asyncio.Lock()
        self._stale_at = 0.0

    async def render(self, services: Services) -> bytes:
        """Return the metrics as text, at most a second old.

        Metrics whose server does not respond are missing, which is worth an alert.
        """
        async with self._lock:
            if time.monotonic() >= self._stale_at:
                backlogs, budget = await asyncio.gather(
                    _available(services.ledger.due.backlogs()), _available(services.budget.state())
                )
                self._metrics = [
                    *(_backlog_metrics(backlogs) if backlogs else ()),
                    *(_budget_metrics(budget) if budget else ()),
                ]
                self._stale_at = time.monotonic() + MAX_AGE_SECONDS
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of the last read."""
        return self._metrics


async def _available(read: Awaitable[T]) -> T | None:
    with suppress(TimeoutError, Unavailable):
        return await asyncio.wait_for(read, TIMEOUT_SECONDS)
    return None


def _backlog_metrics(backlogs: list[Backlog]) -> Iterator[Metric]:
    oldest = _longest(shard.unsynced_ms for shard in backlogs)
    parked = sum(shard.parked for shard in backlogs)
    unbillable = sum(shard.unbillable for shard in backlogs)
    on_hold = sum(shard.on_hold for shard in backlogs)
    rewound = sum(shard.rewound for shard in backlogs)
    oldest_hold = _longest(shard.on_hold_ms for shard in backlogs)
    priority = _longest(shard.priority_ms for shard in backlogs)
    routine = _longest(shard.due_ms for shard in backlogs)
    late = {"priority": priority, "routine": routine}
    aliases = {"first": priority, "in_turn": routine}  # the former names
    yield _gauge(
        "unsynced_oldest_seconds", "Age of the oldest unsynced usage, not on hold.", oldest
    )
    yield _gauge("parked", "Periods that Stripe rejected until a person or a webhook acts.", parked)
    yield _gauge(
        "unbillable",
        "Periods of deleted Stripe customers whose usage a person has to write off.",
        unbillable,
    )
    yield _gauge("held", "Customers whose billing is on hold, by Support or by a void.", on_hold)
    yield _gauge("held_oldest_seconds", "Age of the oldest of these holds.", oldest_hold)
    yield _gauge("rewound", "Customers of whom the ledger lost usage that Stripe shows.", rewound)
    yield from _books_metrics(backlogs)
    yield _gauge(
        "due_late_seconds", "Longest wait of due work for a worker.", late | aliases, "line"
    )


def _books_metrics(backlogs: list[Backlog]) -> Iterator[Metric]:
    differences = sum(shard.differences for shard in backlogs)
    sums: Counter[str] = Counter()
    for shard in backlogs:
        for currency, amount in shard.difference_sums.items():
            sums[currency] += amount
    yield _gauge("books_unbalanced", "Periods whose ledger and invoice differ.", differences)
    yield _gauge(
        "books_difference",
        "Ledger minus Stripe in minor units; 0 if all is well.",
        sums,
        "currency",
    )


def _longest(waits_ms: Iterable[int | None]) -> float:
    """Return the longest wait in seconds; one that is not due yet is negative and counts as 0."""
    return max(0, *(wait or 0 for wait in waits_ms)) / 1000


def _budget_metrics(budget: BudgetState) -> Iterator[Metric]:
    rates = {state.endpoint: state.per_second for state in budget.endpoints}
    throttled = {state.endpoint: state.throttled for state in budget.endpoints}
    until = budget.limited_until.timestamp() if budget.limited_until else 0
    yield _gauge("stripe_waiting", "Calls that wait for the budget.", dict(budget.lanes), "lane")
    yield _gauge("stripe_rate", "Calls per second allowed now.", rates, "endpoint")
    yield _gauge("stripe_refused", "429s of Stripe's limiter so far.", throttled, "endpoint")
    yield _gauge("stripe_limited_until_seconds", "Unix time when a pause ends; 0 for none.", until)
    yield _gauge(
        "stripe_key_refused", "1 while Stripe refuses our key.", len(budget.key_refused) > 0
    )
    yield _gauge("stripe_reads", "Reads in 30 days.", budget.reads_used)
    yield _gauge("stripe_read_allowance", "Reads allowed in 30 days.", budget.read_allowance)


def _gauge(
    name: str, description: str, value: float | Mapping[str, float], label: str = ""
) -> GaugeMetricFamily:
    """Return a gauge with one value, or with a value for each value of *label*."""
    if not isinstance(value, Mapping):
        return GaugeMetricFamily(f"billing_{name}", description, value)
    gauge = GaugeMetricFamily(f"billing_{name}", description, labels=[label])
    for label_value, number in value.items():
        gauge.add_metric([label_value], number)
    return gauge
