"""What an operation reads of the ledger, each thing once."""

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
from resolvers.dataloaders.cached_reads import Cost, Footprint, Reading

Quantities = Mapping[LineKey, Decimal]


class LedgerLoaders:
    """Loaders of the ledger's side; all but the prices depend on the customer's usage generation.

    They add what they take to *cost*.
    """

    def __init__(
        self, services: Services, lane: Lane = Lane.CUSTOMER, cost: Cost | None = None
    ) -> None:
        self._services = services
        self._reading = Reading(services, lane, cost)

    @property
    def cost(self) -> Cost:
        """What has been loaded so far, and what that took."""
        return self._reading.cost

    @property
    def footprint(self) -> Footprint:
        """What everything loaded so far depends on."""
        return self._reading.footprint

    def forget(self) -> None:
        """Let what was loaded go: loaders know whom they load for, who knows them, and the two would stay."""
        loaders = [name for name, each in vars(self).items() if isinstance(each, Loader)]
        for name in loaders:
            delattr(self, name)

    @cached_property
    def snapshot(self) -> Loader[str, Snapshot]:
        """What the ledger knows of a customer's open period."""
        return Loader(self._snapshots)

    @cached_property
    def period(self) -> Loader[tuple[str, Period], Snapshot]:
        """What the ledger knows of one period of a customer."""
        return Loader.each(self._period)

    @cached_property
    def breakdown(self) -> Loader[tuple[str, Period, Dimension], Mapping[str, Quantities]]:
        """What a customer used in a period, by value of a dimension, then by line."""
        return Loader.each(self._breakdown)

    @cached_property
    def due_ms(self) -> Loader[tuple[str, Period], int | None]:
        """When a worker looks at a customer's period at the latest; None when nothing is left to say."""
        return Loader.each(self._due_ms)

    @cached_property
    def hold(self) -> Loader[str, Hold | None]:
        """Why a customer's billing is stopped; None when it is not."""
        return Loader.each(self._hold)

    @cached_property
    def sync(self) -> Loader[str, Sync | None]:
        """A sync by its id."""
        return Loader(self._syncs)

    @cached_property
    def last_sync(self) -> Loader[str, Sync | None]:
        """A customer's latest sync."""
        return Loader.each(self._last_sync)

    async def prices(self, snapshot: Snapshot) -> Mapping[str, Price]:
        """The prices that a snapshot pins, by id: they never change."""
        return await self._services.catalogue.by_id(snapshot.prices.values())

    async def _snapshots(self, customers: Sequence[str]) -> Sequence[Snapshot]:
        await self._reading.of_ledger(*customers)
        return await self._services.ledger.currents([CustomerId(each) for each in customers])

    async def _period(self, key: tuple[str, Period]) -> Snapshot:
        customer, period = key
        await self._reading.of_ledger(customer)
        return await self._services.ledger.peek(CustomerId(customer), period)

    async def _breakdown(self, key: tuple[str, Period, Dimension]) -> Mapping[str, Quantities]:
        customer, period, dimension = key
        await self._reading.of_ledger(customer)
        return await self._services.ledger.breakdown(CustomerId(customer), period, dimension)

    async def _due_ms(self, key: tuple[str, Period]) -> int | None:
        customer, period = key
        await self._reading.of_ledger(customer)
        return await self._services.ledger.due_ms(CustomerId(customer), period)

    async def _hold(self, customer: str) -> Hold | None:
        await self._reading.of_ledger(customer)
        return await self._services.ledger.held(CustomerId(customer))

    async def _syncs(self, ids: Sequence[str]) -> Sequence[Sync | None]:
        self.footprint.sound = False  # somebody waits for it to change
        return await self._services.syncs.many(ids)

    async def _last_sync(self, customer: str) -> Sync | None:
        await self._reading.of_ledger(customer)
        return await self._services.syncs.of(CustomerId(customer))
