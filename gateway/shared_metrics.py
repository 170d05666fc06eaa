"""Prometheus metrics that all processes share, read from Redis: the backlog and Stripe's budget."""

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from billing.budget.state import BudgetState
from billing.errors import Unavailable
from billing.ledger.queries import Backlog
from billing.services import Services

TIMEOUT_SECONDS = 2.0  # Prometheus tries again
MAX_AGE_SECONDS = 1.0


class SharedMetrics:
    """Renders the metrics; concurrent and frequent scrapes share one read of ledger and budget."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._text = b""
        self._stale_at = 0.0

    async def render(self, services: Services) -> bytes:
        """Return the metrics as text, at most a second old.

        Metrics whose server does not respond are missing, which is worth an alert.
        """
        async with self._lock:
            if time.monotonic() >= self._stale_at:
                registry = CollectorRegistry()
                registry.register(_Families(await _read(services)))
                self._text = generate_latest(registry)
                self._stale_at = time.monotonic() + MAX_AGE_SECONDS
        return self._text


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


async def _read(services: Services) -> list[Metric]:
    backlogs, budget = await asyncio.gather(
        asyncio.wait_for(services.ledger.backlogs(), TIMEOUT_SECONDS),
        asyncio.wait_for(services.budget.state(), TIMEOUT_SECONDS),
        return_exceptions=True,
    )
    for result in (backlogs, budget):
        if isinstance(result, BaseException) and not isinstance(result, TimeoutError | Unavailable):
            raise result
    families: list[Metric] = []
    if not isinstance(backlogs, BaseException):
        families += _backlog_metrics(backlogs)
    if not isinstance(budget, BaseException):
        families += _budget_metrics(budget)
    return families


def _backlog_metrics(backlogs: list[Backlog]) -> Iterator[Metric]:
    late = {
        "priority": _longest_seconds(shard.priority_ms for shard in backlogs),
        "routine": _longest_seconds(shard.due_ms for shard in backlogs),
    }
    late |= {"first": late["priority"], "in_turn": late["routine"]}  # the labels' former values
    yield _gauge(
        "unsynced_oldest_seconds",
        "Age of the oldest usage not yet sent to Stripe, customers on hold excluded.",
        _longest_seconds(shard.unsynced_ms for shard in backlogs),
    )
    yield _gauge(
        "parked",
        "Periods that Stripe rejected for good; a person or a webhook resumes them.",
        sum(shard.parked for shard in backlogs),
    )
    yield _gauge(
        "held",
        "Customers whose billing is on hold, by Support or by a void.",
        sum(shard.on_hold for shard in backlogs),
    )
    yield _gauge(
        "held_oldest_seconds",
        "Age of the oldest of these holds.",
        _longest_seconds(shard.on_hold_ms for shard in backlogs),
    )
    yield _gauge("due_late_seconds", "Longest wait of due work for a worker.", late, "line")


def _longest_seconds(waits_ms: Iterable[int | None]) -> float:
    return max(0, *(wait or 0 for wait in waits_ms)) / 1000


def _budget_metrics(budget: BudgetState) -> Iterator[Metric]:
    endpoints = budget.endpoints
    rates = {endpoint.endpoint: endpoint.per_second for endpoint in endpoints}
    throttled = {endpoint.endpoint: endpoint.throttled for endpoint in endpoints}
    limited_until = budget.limited_until.timestamp() if budget.limited_until else 0
    yield _gauge("stripe_waiting", "Calls that wait for the budget.", dict(budget.lanes), "lane")
    yield _gauge("stripe_rate", "Calls per second allowed now.", rates, "endpoint")
    yield _gauge("stripe_refused", "429s of Stripe's limiter so far.", throttled, "endpoint")
    yield _gauge(
        "stripe_limited_until_seconds",
        "Unix time at which a pause after a 429, or an open breaker, ends; 0 for none.",
        limited_until,
    )
    yield _gauge("stripe_reads", "Reads in 30 days.", budget.reads_used)
    yield _gauge("stripe_read_allowance", "Reads allowed in 30 days.", budget.read_allowance)


def _gauge(
    name: str, description: str, values: float | Mapping[str, float], label: str = ""
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"billing_{name}", description, labels=[label] if label else [])
    for label_value, value in values.items() if isinstance(values, Mapping) else [("", values)]:
        family.add_metric([label_value] if label else [], value)
    return family
