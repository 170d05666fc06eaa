"""Drift: differences between Stripe's drafts and the ledger."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

from billing.budget import Lane
from billing.invoicing.amounts import DriftLine, find_drift
from billing.invoicing.snapshot import PeriodState, Snapshot
from billing.services import Services
from billing.stripe import resources
from billing.usage import CustomerId
from resolvers.billing_periods import PricedSnapshot


@dataclass(frozen=True, slots=True)
class DriftComparison:
    """A comparison of a customer's drafts with the ledger, each line with the period it belongs to.

    *conflicting_deltas* counts the reports rejected because their id had been counted with other content.
    """

    lines: list[tuple[DriftLine, PricedSnapshot]]
    checked_at: datetime
    conflicting_deltas: int


async def compare(services: Services, customer: CustomerId) -> DriftComparison:
    """Read *customer*'s drafts from Stripe and compare them with the ledger."""
    checked_at = datetime.now(UTC)
    lines: list[tuple[DriftLine, PricedSnapshot]] = []
    for snapshot in await unsealed_snapshots(services, customer):
        prices = await services.price_catalog.require(snapshot.prices.values())
        period = PricedSnapshot(snapshot, prices)
        lines += [(line, period) for line in await drift_lines(services, snapshot)]
    [current] = await services.ledger.periods.current_snapshots([customer])
    return DriftComparison(lines, checked_at, current.conflicts)


async def unsealed_snapshots(services: Services, customer: CustomerId) -> list[Snapshot]:
    """Snapshots of the months whose bills can still change: the current one and those being closed."""
    periods = await services.ledger.periods.list_retained(customer)
    snapshots = await asyncio.gather(
        *(services.ledger.periods.snapshot(customer, period) for period in periods)
    )
    return [snapshot for snapshot in snapshots if snapshot.state is not PeriodState.SEALED]


async def drift_lines(services: Services, snapshot: Snapshot) -> list[DriftLine]:
    """The lines that differ; reads the invoice from Stripe, past the cache.

    Lines that a running sync is writing are left out: their state is not settled yet.
    """
    requests = snapshot.batch.requests if snapshot.batch else ()
    in_flight = {line for request in requests for line in request.lines}
    invoice = None
    if snapshot.invoice is not None:
        resource = resources.remote_invoice(snapshot.invoice)
        invoice = (await services.stripe_reader.get(resource, Lane.SUPPORT)).value
    prices = await services.price_catalog.by_id(snapshot.prices.values())
    drift = find_drift(snapshot, invoice, prices)
    return [line for line in drift if line.key not in in_flight]
