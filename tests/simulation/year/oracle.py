"""The oracle of the larger world: compares what the ledger has counted with what the invoices say, at any moment."""

from collections import Counter
from decimal import ROUND_HALF_UP
from typing import TYPE_CHECKING

from billing.invoicing.request_batch import RequestKind, StripeRequest
from billing.invoicing.snapshot import Snapshot
from billing.ledger import Adjustment
from billing.usage import CustomerId, Period, Price, UsageDelta
from tests.simulation.oracle import DECISION_MS
from tests.simulation.workers import Worker
from tests.simulation.year.bills import Invoice, month_of
from tests.simulation.year.losses import Losses
from tests.simulation.year.records import Records

if TYPE_CHECKING:
    from tests.simulation.year.world import YearWorld

PATIENCE = 3  # times that a person wakes a period for a reason that names no cure


class YearOracle(Records):
    """Keeps its own records of what people did, and reads the ledger only to compare."""

    def __init__(self, world: "YearWorld") -> None:
        super().__init__(world)
        self.losses = Losses(world, self)
        self.duplicates_found = 0
        self._checked: set[str] = set()
        self._excused: set[str] = set()
        self._given_up: set[tuple[str, str]] = set()
        self._stuck: Counter[tuple[str, str, str]] = Counter()

    def begin_loss(self) -> None:
        """The ledger has other data from now on; requests that it has forgotten may still arrive."""
        self.losses.begin()
        self._excused |= set(self._world.stripe.invoices)

    def begin_epoch(self) -> None:
        """A new epoch gives up the requests under way: what they add may stand twice on a draft until it rests."""
        stripe = self._world.stripe
        self._given_up |= {
            (invoice, line["metadata"]["gw_line"])
            for invoice in stripe.invoices
            for request in stripe.undelivered(invoice)
            if request.path.endswith("/add_lines")
            for line in request.params["lines"]
        }

    # Usage and corrections

    def check_counted(self, delta: UsageDelta, price: Price) -> None:
        """Check that usage counts at the price that is sold, in the customer's own currency."""
        sold = self._world.stripe.catalog.sold(delta.sku)
        found = sold and sold["id"]
        self.require(found == price.id, f"{delta.sku} counted at {price.id}, sold at {found}")
        own = self._world.own_currency.get(delta.customer, price.currency)
        self.require(own == price.currency, f"{delta.customer} counts {price.currency}, not {own}")
        deleted = delta.customer in self.losses.deleted
        self.require(
            not deleted, f"usage of {delta.customer} counted, which is known to be deleted"
        )

    async def correction_prices(
        self, customer: CustomerId, sku: str, month: Period | None
    ) -> set[str]:
        """The prices that a correction may have: that of the month's own usage, else any of the SKU's."""
        counted_in = month or await self._world.ledger.periods.current(customer)
        own = self._world.books.pinned(customer, counted_in, sku)
        prices = self._world.stripe.catalog.prices
        return {own} if own else {price for price in prices if price.endswith(f"_{sku}")}

    def check_correction_price(self, made: Adjustment, allowed: set[str]) -> None:
        """Check that a correction takes back at the price at which the usage was counted."""
        self.require(made.price in allowed, f"{made.id} at {made.price}, not at {allowed}")

    # At every moment

    async def check_write(self, request: StripeRequest, worker: Worker) -> None:
        """Check right after a write of *worker*."""
        world = self._world
        knowing = worker.began_after == world.counts["rewinds"]
        if not knowing:
            self._excused |= set(request.path.split("/")[3:4])
        self.check_lines(knowing=knowing)
        hold = await world.ledger.holds.get(worker.customer)
        if knowing and hold is not None and request.kind is not RequestKind.DISABLE_AUTO_ADVANCE:
            self.require(
                hold.since_ms >= worker.began_ms, f"{request.kind} of {worker.customer} on hold"
            )
        if request.kind is RequestKind.FINALIZE and knowing:
            await self._check_finalized(request.path.split("/")[3], worker)

    def check_lines(self, *, knowing: bool = False) -> None:
        """Check that no line of ours is doubled, and that no person's line has changed."""
        invoices = self._world.stripe.invoices
        for invoice in invoices.values():
            if not self.is_ours(invoice):
                continue
            keys = Counter(line["metadata"].get("gw_line") for line in invoice["lines"])
            doubled = [key for key, count in keys.items() if key and count > 1]
            self.duplicates_found += bool(doubled)
            given_up = {(invoice["id"], key) for key in doubled} <= self._given_up
            late = self._world.refusals or invoice["id"] in self._excused or given_up
            by_us = invoice["id"] in self._world.stripe.finalized_by_us
            self.require(not doubled or (late and not by_us), f"{invoice['id']} doubles {doubled}")
        for line, (owner, amount) in self.foreign.items():
            lines = invoices[owner]["lines"] if owner in invoices else []
            found = [shown["amount"] for shown in lines if shown["id"] == line]
            self.require(found == [amount], f"line {line} of a person on {owner} was changed")

    async def _check_finalized(self, invoice_id: str, worker: Worker) -> None:
        """Check a bill that we finalized: it says what the ledger says, at its prices, in its words."""
        world = self._world
        invoice = world.stripe.invoices.get(invoice_id)
        if invoice is None or invoice["status"] == "draft" or invoice_id in self._checked:
            return
        self._checked.add(invoice_id)
        snapshot = await world.ledger.periods.snapshot(worker.customer, month_of(invoice))
        coming = [
            request
            for request in world.stripe.undelivered(invoice_id)
            if "final" not in request.path
        ]
        self.require(not coming, f"{invoice_id} finalized while {coming} may still arrive")
        hold = snapshot.hold
        on_hold = hold is not None and world.now - hold.since_ms > DECISION_MS
        self.require(not on_hold, f"{invoice_id} finalized under a hold")
        ended_ms = month_of(invoice).end.timestamp() * 1000
        self.require(world.now >= ended_ms, f"{invoice_id} finalized before its month was over")
        if world.now - self.edited.get(invoice_id, 0) >= DECISION_MS:
            self._require_agreement(invoice, snapshot)

    def check_draft(self, snapshot: Snapshot) -> None:
        """Check at rest that a draft which nobody has changed says what the ledger says."""
        invoice = self._world.stripe.invoices.get(snapshot.invoice or "")
        excused = self.edited.keys() | self._excused
        if invoice is None or invoice["status"] != "draft" or invoice["id"] in excused:
            return
        if not self._world.refusals:
            self._require_agreement(invoice, snapshot)

    def _require_agreement(self, invoice: Invoice, snapshot: Snapshot) -> None:
        counted = {key: quantity for key, quantity in snapshot.totals.items() if quantity}
        ours = [line for line in invoice["lines"] if line["metadata"].get("gw_line")]
        billed = {line["metadata"]["gw_line"]: self.bills.quantity(line) for line in ours}
        self.require(len(billed) == len(ours), f"{invoice['id']} rests with a doubled line")
        self.require(counted == billed, f"{invoice['id']} has {billed}, the ledger {counted}")
        for line in ours:
            key = line["metadata"]["gw_line"]
            unit, price = self.bills.price(line)
            self.require(price == snapshot.prices[key], f"{key} at {price}")
            exact = (billed[key] * unit).to_integral_value(ROUND_HALF_UP)
            self.require(int(exact) == line["amount"], f"{key}: {line['amount']} for {exact}")
            words = line.get("description") or ""
            if line["pricing"] is None and not key.startswith("adj:"):
                shown = f"{abs(billed[key]).normalize():f}"
                self.require(shown in words, f"{key}: {words!r} for {shown}")

    def require_curable(self, snapshot: Snapshot, names_a_cure: bool) -> None:
        """Check that a parked period says what a person can do, or goes on once it is woken."""
        key = (snapshot.customer, str(snapshot.period), str(snapshot.parked_reason))
        self._stuck[key] += 1
        stuck = self._stuck[key] > PATIENCE and not names_a_cure
        self.require(not stuck, f"{key} is stuck for ever")

    def check_unbillable(self, snapshot: Snapshot) -> None:
        """Check that only a deleted customer's usage is said to be unbillable."""
        deleted = self._world.stripe.customers[snapshot.customer].get("deleted")
        self.require(bool(deleted), f"{snapshot.customer} is said to be deleted")
