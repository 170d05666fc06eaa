"""Losses of the ledger: what Stripe showed then is not lowered until a person accepts it."""

from decimal import Decimal
from typing import TYPE_CHECKING

from billing.invoicing.snapshot import PeriodState, Snapshot
from billing.usage import CustomerId, Period
from tests.simulation.year.bills import by_sku
from tests.simulation.year.records import Records

if TYPE_CHECKING:
    from tests.simulation.year.world import YearWorld


class Losses:
    """*listed_ms*: when a customer's invoices were listed since. *deleted*: who the ledger knows to be gone.

    *settled* are months of deleted customers that ended without a bill.
    """

    def __init__(self, world: "YearWorld", records: Records) -> None:
        self._world = world
        self._records = records
        self.listed_ms: dict[CustomerId, int] = {}
        self.deleted: set[CustomerId] = set()
        self.settled: dict[tuple[str, Period], Snapshot] = {}
        self._floor: dict[tuple[str, str], Decimal] = {}
        self._lost_ms = 0
        self._is_first_look = True
        self._registered: dict[CustomerId, str] = {}

    def begin(self) -> None:
        """Remember what Stripe shows: until a person accepts the loss, nothing is lowered below it.

        Of what Stripe never showed, credits may be among what the ledger has kept: also if another server that did
        not have them was in its place for a while, and had Stripe show all that it had. What was billed twice,
        because another ledger knew nothing of it, may go.
        """
        books, records = self._world.books, self._records
        counted, hidden = by_sku(books.sums(books.ever)), books.credits_never_shown()
        self._floor = {
            key: min(quantity, counted.get(key, quantity)) + hidden[key]
            for key, quantity in records.bills.by_sku().items()
        }
        self._lost_ms, self._is_first_look = self._world.now, True
        for known in (records.accepted, self.deleted, self.listed_ms):
            known.clear()

    def _check_not_lowered(self, customers: set[CustomerId]) -> None:
        """Check that a ledger that has lost usage of *customers* has given nothing back."""
        records = self._records
        billed = records.bills.by_sku()
        taken_off = self._world.books.credited_since(self._lost_ms)
        for key, floor in self._floor.items():
            deleted = self._world.stripe.customers[key[0]].get("deleted")
            if deleted or key[0] not in customers - records.accepted - records.edited_customers:
                continue
            least, now = floor + taken_off[key], billed.get(key, Decimal())
            records.require(
                now >= least, f"{key} was lowered to {now}, below {least}, after a loss"
            )

    async def look(self) -> None:
        """Learn which months the ledger has, and which are sealed; check customers whose flushes rest.

        The seal of a month lists all invoices of its customer, so from then on the ledger knows recent months.
        """
        ledger, resting = self._world.ledger, set[CustomerId]()
        self._registered = await ledger.usage.registered_currencies(self._world.customers)
        for customer in self._world.customers:
            synced = rests = True
            for month in await ledger.periods.list_retained(customer):
                snapshot = await ledger.periods.snapshot(customer, month)
                self._learn(snapshot)
                if snapshot.state is not PeriodState.SEALED:
                    waits = snapshot.up_to_date or snapshot.hold is not None
                    synced = synced and snapshot.up_to_date and snapshot.hold is None
                    rests = rests and waits and snapshot.batch is None
            if synced:
                self._world.books.show(customer)
            if rests:
                resting.add(customer)
        self._is_first_look = False
        if self._world.losses:
            self._check_not_lowered(resting)

    def _learn(self, snapshot: Snapshot) -> None:
        key = (snapshot.customer, snapshot.period)
        self._world.books.page.months.add(key)
        if snapshot.customer_deleted:
            self.deleted.add(snapshot.customer)
        if snapshot.state is not PeriodState.SEALED:
            self._records.sealed.discard(key)
            return
        known = snapshot.customer in self._registered  # another one has no months to be reminded of
        if known and not self._is_first_look and key not in self._records.sealed:
            self.listed_ms.setdefault(snapshot.customer, self._world.now)
        self._records.sealed.add(key)
        if snapshot.customer_deleted and snapshot.invoice is None:
            self.settled[key] = snapshot
