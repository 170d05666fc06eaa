"""Loaders of the ledger's data."""

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from billing.budget import Lane
from billing.invoicing.snapshot import Hold, Snapshot
from billing.ledger.syncs import Sync
from billing.ledger.usage import Dimension
from billing.services import Services
from billing.usage import CustomerId, LineKey, Period, Price
from resolvers.dataloaders.base import DataLoaders, load_batch, load_once
from resolvers.dataloaders.cached_reads import CacheDependencies, CachedReader, ReadStats

Quantities = Mapping[LineKey, Decimal]


@dataclass(frozen=True, slots=True)
class Computation:
    """Something to compute by *run*; those with the same *key* have the same result."""

    key: Hashable
    run: Callable[[], Awaitable[Any]] = field(compare=False)


class LedgerLoaders(DataLoaders):
    """Loads the ledger's data; all but prices and syncs depend on the customer's usage generation.

    Adds to *stats*.
    """

    def __init__(
        self, services: Services, lane: Lane = Lane.CUSTOMER, stats: ReadStats | None = None
    ) -> None:
        super().__init__()
        self._services = services
        self._reader = CachedReader(services, lane, stats)

    @property
    def stats(self) -> ReadStats:
        """Statistics of everything loaded so far."""
        return self._reader.stats

    @property
    def dependencies(self) -> CacheDependencies:
        """Cache dependencies of everything loaded so far."""
        return self._reader.dependencies

    @load_batch
    async def snapshot(self, customers: Sequence[str]) -> Sequence[Snapshot]:
        """Snapshots of the customers' open periods."""
        await self._reader.depend_on_ledger(*customers)
        ids = [CustomerId(customer) for customer in customers]
        return await self._services.ledger.periods.current_snapshots(ids)

    @load_once
    async def period(self, customer: str, period: Period) -> Snapshot:
        """Snapshot of one period of a customer."""
        await self._reader.depend_on_ledger(customer)
        return await self._services.ledger.periods.snapshot(CustomerId(customer), period)

    @load_once
    async def breakdown(
        self, customer: str, period: Period, dimension: Dimension
    ) -> Mapping[str, Quantities]:
        """Quantities of a customer's period by value of a dimension, then by line."""
        await self._reader.depend_on_ledger(customer)
        return await self._services.ledger.usage.breakdown(CustomerId(customer), period, dimension)

    @load_once
    async def computed(self, computation: Computation) -> Any:
        """Result of a computation, once per operation however many fields ask for it."""
        return await computation.run()

    @load_once
    async def due_ms(self, customer: str, period: Period) -> int | None:
        """Time of the period's next flush, in milliseconds since 1970; None if none is due."""
        await self._reader.depend_on_ledger(customer)
        return await self._services.ledger.due.time_ms(CustomerId(customer), period)

    @load_once
    async def hold(self, customer: str) -> Hold | None:
        """A customer's active hold, if any."""
        await self._reader.depend_on_ledger(customer)
        return await self._services.ledger.holds.get(CustomerId(customer))

    @load_batch
    async def sync(self, ids: Sequence[str]) -> Sequence[Sync | None]:
        """Syncs by id; None for an unknown one."""
        self.dependencies.cacheable = False  # clients poll it for changes
        return await self._services.ledger.syncs.get_many(ids)

    @load_once
    async def last_sync(self, customer: str) -> Sync | None:
        """A customer's latest sync."""
        await self._reader.depend_on_ledger(customer)
        return await self._services.ledger.syncs.latest(CustomerId(customer))

    async def prices(self, snapshot: Snapshot) -> Mapping[str, Price]:
        """The prices that a snapshot pins, by id, archived ones too; PriceMissing if Stripe has one no more."""
        return await self._services.price_catalog.require(snapshot.prices.values())
