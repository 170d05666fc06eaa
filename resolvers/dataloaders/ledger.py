"""DataLoaders of the ledger's data."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cached_property

from billing.budget import Lane
from billing.invoicing.snapshot import Hold, Snapshot
from billing.ledger.queries import Dimension
from billing.ledger.syncs import Sync
from billing.services import Services
from billing.usage import CustomerId, LineKey, Period, Price
from resolvers.dataloaders.base import Loader
from resolvers.dataloaders.cached_reads import CacheDependencies, CachedReader, ReadStats

Quantities = Mapping[LineKey, Decimal]


class LedgerLoaders:
    """Loaders of the ledger's data; all but the prices depend on the customer's usage generation.

    They add to *stats*.
    """

    def __init__(
        self, services: Services, lane: Lane = Lane.CUSTOMER, stats: ReadStats | None = None
    ) -> None:
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

    def clear(self) -> None:
        """Drop the loaders, which form reference cycles with this object."""
        loaders = [name for name, value in vars(self).items() if isinstance(value, Loader)]
        for name in loaders:
            delattr(self, name)

    @cached_property
    def snapshot(self) -> Loader[str, Snapshot]:
        """Snapshot of a customer's open period."""
        return Loader(self._snapshots)

    @cached_property
    def period(self) -> Loader[tuple[str, Period], Snapshot]:
        """Snapshot of one period of a customer."""
        return Loader.per_key(self._period)

    @cached_property
    def breakdown(self) -> Loader[tuple[str, Period, Dimension], Mapping[str, Quantities]]:
        """Quantities of a customer's period by value of a dimension, then by line."""
        return Loader.per_key(self._breakdown)

    @cached_property
    def due_ms(self) -> Loader[tuple[str, Period], int | None]:
        """Time of the period's next flush, in milliseconds since 1970; None if none is due."""
        return Loader.per_key(self._due_ms)

    @cached_property
    def hold(self) -> Loader[str, Hold | None]:
        """A customer's active hold, if any."""
        return Loader.per_key(self._hold)

    @cached_property
    def sync(self) -> Loader[str, Sync | None]:
        """A sync by its id."""
        return Loader(self._syncs)

    @cached_property
    def last_sync(self) -> Loader[str, Sync | None]:
        """A customer's latest sync."""
        return Loader.per_key(self._last_sync)

    async def prices(self, snapshot: Snapshot) -> Mapping[str, Price]:
        """The prices that a snapshot pins, by id; they are immutable."""
        return await self._services.price_catalog.by_id(snapshot.prices.values())

    async def _snapshots(self, customers: Sequence[str]) -> Sequence[Snapshot]:
        await self._reader.depend_on_ledger(*customers)
        return await self._services.ledger.current_snapshots(
            [CustomerId(customer) for customer in customers]
        )

    async def _period(self, key: tuple[str, Period]) -> Snapshot:
        customer, period = key
        await self._reader.depend_on_ledger(customer)
        return await self._services.ledger.snapshot(CustomerId(customer), period)

    async def _breakdown(self, key: tuple[str, Period, Dimension]) -> Mapping[str, Quantities]:
        customer, period, dimension = key
        await self._reader.depend_on_ledger(customer)
        return await self._services.ledger.breakdown(CustomerId(customer), period, dimension)

    async def _due_ms(self, key: tuple[str, Period]) -> int | None:
        customer, period = key
        await self._reader.depend_on_ledger(customer)
        return await self._services.ledger.due_ms(CustomerId(customer), period)

    async def _hold(self, customer: str) -> Hold | None:
        await self._reader.depend_on_ledger(customer)
        return await self._services.ledger.get_hold(CustomerId(customer))

    async def _syncs(self, ids: Sequence[str]) -> Sequence[Sync | None]:
        self.dependencies.cacheable = False  # clients poll it for changes
        return await self._services.syncs.get_many(ids)

    async def _last_sync(self, customer: str) -> Sync | None:
        await self._reader.depend_on_ledger(customer)
        return await self._services.syncs.latest(CustomerId(customer))
