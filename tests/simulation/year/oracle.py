"""The oracle of the larger world: compares what the ledger has counted with what the invoices say, at any moment."""

from collections import Counter, defaultdict
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any

from billing.invoicing.request_batch import RequestKind, StripeRequest
from billing.invoicing.snapshot import Hold, PeriodState, Snapshot
from billing.ledger import Adjustment
from billing.usage import CustomerId, Period, Price, UsageDelta
from tests.simulation.oracle import DECISION_MS, Violation
from tests.simulation.stripe_model import DAY_MS
from tests.simulation.workers import Worker
from tests.simulation.year.books import Sums

if TYPE_CHECKING:
    from tests.simulation.year.world import YearWorld

Invoice = dict[str, Any]
# A void is seen in a month that the ledger still has; it forgets a month after a hundred days.
REMEMBERED_MS = 75 * DAY_MS
PATIENCE = 3  # times that a person wakes a period for a reason that names no cure


class YearOracle:
    """Keeps its own records of what people did, and reads the ledger only to compare."""

    def __init__(self, world: "YearWorld") -> None:
        self._world = world
        self.sealed: set[tuple[str, Period]] = set()
        self.settled: dict[tuple[str, Period], Snapshot] = {}  # without a bill: it came to nothing
        self.duplicates: set[str] = set()
        self.accepted: set[str] = set()
        self.pending_items = 0
        self.duplicates_found = 0
        self._foreign: dict[str, tuple[str, int]] = {}
        self._edited: dict[str, int] = {}
        self._edited_customers: set[str] = set()
        self._voided: dict[str, bool] = {}
        self._reasons: list[str] = []
        self._promised: set[str] = set()
        self._checked: set[str] = set()
        self._excused: set[str] = set()
        self._floor: dict[tuple[str, str], Decimal] = {}
        self._lost_ms = 0
        self._gone: set[CustomerId] = set()
        self._first_look = True
        self.listed_ms: dict[CustomerId, int] = {}
        self._stuck: Counter[tuple[str, str, str]] = Counter()

    def require(self, holds: bool, otherwise: str) -> None:
        """Stop the schedule unless *holds*."""
        if not holds:
            raise Violation(otherwise)

    # What people did

    def is_ours(self, invoice: Invoice) -> bool:
        """True for an invoice of the gateway's: no revision and no copy of a bill."""
        copied = invoice.get("from_invoice") or invoice["id"] in self.duplicates
        return bool(invoice["metadata"].get("gw_period")) and not copied

    def is_sealed(self, invoice: Invoice) -> bool:
        """True if the invoice's month was sealed when it was last looked at."""
        return (invoice["customer"], _month(invoice)) in self.sealed

    def record_edit(self, draft: Invoice) -> None:
        """Record that a person changed a draft of the gateway's."""
        self._edited[draft["id"]] = self._world.now
        self._edited_customers.add(draft["customer"])

    def record_void(self, invoice: Invoice) -> None:
        """Record a void; a hold is owed if the ledger still has the month."""
        month = _month(invoice) if invoice["metadata"].get("gw_period") else None
        ended = month.end.timestamp() * 1000 if month else 0
        self._voided[invoice["id"]] = ended + REMEMBERED_MS > self._world.now
        self._edited_customers.add(invoice["customer"])

    def record_foreign_line(self, invoice: str, line: Invoice) -> None:
        """Record a person's line: nobody else may change it."""
        self._foreign[line["id"]] = invoice, line["amount"]

    def protect(self, copied: Invoice) -> None:
        """Record all lines of a revision or copy as a person's."""
        for line in copied["lines"]:
            self.record_foreign_line(copied["id"], line)

    def forget_foreign(self, invoice: str) -> None:
        """Forget the lines of a draft that a person deleted or cleared."""
        self._foreign = {line: at for line, at in self._foreign.items() if at[0] != invoice}

    def promise_final(self, invoice: str) -> None:
        """Record that Support was told of no reason not to finalize *invoice*."""
        self._promised.add(invoice)

    def check_hold(self, customer: CustomerId, hold: Hold) -> None:
        """Check that a hold of the gateway's has a cause, and remember that it was shown."""
        self._reasons.append(hold.reason)
        if hold.by != "gateway":
            return
        if "has lost usage" in hold.reason:
            self.require(self._world.losses > 0, f"{customer} held without a loss: {hold.reason}")
            self.accepted.add(customer)
        else:
            named = [invoice for invoice in self._voided if f"{invoice} " in f"{hold.reason} "]
            revised = [invoice for invoice in self._voided if f"{invoice}," in hold.reason]
            self.require(bool(named or revised), f"{customer} held without a void: {hold.reason}")

    # Usage and corrections

    def check_counted(self, delta: UsageDelta, price: Price) -> None:
        """Check that usage counts at the price that is sold, in the customer's own currency."""
        sold = self._world.stripe.catalog.sold(delta.sku)
        found = sold and sold["id"]
        self.require(found == price.id, f"{delta.sku} counted at {price.id}, sold at {found}")
        own = self._world.own_currency.get(delta.customer, price.currency)
        self.require(own == price.currency, f"{delta.customer} counts {price.currency}, not {own}")
        gone = delta.customer in self._gone
        self.require(not gone, f"usage of {delta.customer} counted, which is known to be deleted")

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
            late = self._world.refusals or invoice["id"] in self._excused
            by_us = invoice["id"] in self._world.stripe.finalized_by_us
            self.require(not doubled or (late and not by_us), f"{invoice['id']} doubles {doubled}")
        for line, (owner, amount) in self._foreign.items():
            lines = invoices[owner]["lines"] if owner in invoices else []
            found = [each["amount"] for each in lines if each["id"] == line]
            self.require(found == [amount], f"line {line} of a person on {owner} was changed")

    async def _check_finalized(self, invoice_id: str, worker: Worker) -> None:
        """Check a bill that we finalized: it says what the ledger says, at its prices, in its words."""
        world = self._world
        invoice = world.stripe.invoices.get(invoice_id)
        if invoice is None or invoice["status"] == "draft" or invoice_id in self._checked:
            return
        self._checked.add(invoice_id)
        snapshot = await world.ledger.periods.snapshot(worker.customer, _month(invoice))
        coming = [each for each in world.stripe.undelivered(invoice_id) if "final" not in each.path]
        self.require(not coming, f"{invoice_id} finalized while {coming} may still arrive")
        hold = snapshot.hold
        held = hold is not None and world.now - hold.since_ms > DECISION_MS
        self.require(not held, f"{invoice_id} finalized under a hold")
        ended_ms = _month(invoice).end.timestamp() * 1000
        self.require(world.now >= ended_ms, f"{invoice_id} finalized before its month was over")
        if world.now - self._edited.get(invoice_id, 0) >= DECISION_MS:
            self._require_agreement(invoice, snapshot)

    def check_draft(self, snapshot: Snapshot) -> None:
        """Check at rest that a draft which nobody has changed says what the ledger says."""
        invoice = self._world.stripe.invoices.get(snapshot.invoice or "")
        excused = self._edited.keys() | self._excused
        if invoice is None or invoice["status"] != "draft" or invoice["id"] in excused:
            return
        if not self._world.refusals:
            self._require_agreement(invoice, snapshot)

    def _require_agreement(self, invoice: Invoice, snapshot: Snapshot) -> None:
        counted = {key: quantity for key, quantity in snapshot.totals.items() if quantity}
        ours = [line for line in invoice["lines"] if line["metadata"].get("gw_line")]
        billed = {line["metadata"]["gw_line"]: self.quantity(line) for line in ours}
        self.require(counted == billed, f"{invoice['id']} has {billed}, the ledger {counted}")
        for line in ours:
            key = line["metadata"]["gw_line"]
            unit, price = self.price(line)
            self.require(price == snapshot.prices[key], f"{key} at {price}")
            exact = (billed[key] * unit).to_integral_value(ROUND_HALF_UP)
            self.require(int(exact) == line["amount"], f"{key}: {line['amount']} for {exact}")
            words = line.get("description") or ""
            if line["pricing"] is None and not key.startswith("adj:"):
                shown = f"{abs(billed[key]).normalize():f}"
                self.require(shown in words, f"{key}: {words!r} for {shown}")

    def price(self, line: Invoice) -> tuple[Decimal, str]:
        """Unit amount and id of the price that a line of ours bills."""
        units, pricing = self._world.stripe.units, line["pricing"]
        named = pricing["price_details"]["price"] if pricing else line["metadata"]["gw_price"]
        return units[named], named

    def quantity(self, line: Invoice) -> Decimal:
        """The billed quantity; an amount that a person typed counts as the quantity that it buys."""
        if line["pricing"] is not None:
            return Decimal(line["quantity_decimal"])
        unit, _ = self.price(line)
        stated = Decimal(line["metadata"]["gw_quantity"])
        meant = int((stated * unit).to_integral_value(ROUND_HALF_UP))
        by_amount = stated < 0 or "gw_amount" in line["metadata"]
        return stated if by_amount and meant == line["amount"] else line["amount"] / unit

    # After a loss

    def begin_loss(self) -> None:
        """Remember what Stripe shows: until a person accepts the loss, nothing is lowered below it.

        Of what Stripe did not show yet, credits may be among what the ledger has kept.
        """
        books, shown = self._world.books, self._by_sku(self.billed())
        counted = self._by_sku(books.sums(books.ever))
        taken_off = books.credited_since(0)
        self._floor = {
            key: quantity + (Decimal() if counted.get(key) == quantity else taken_off[key])
            for key, quantity in shown.items()
        }
        self._lost_ms = self._world.now
        self.accepted.clear()
        self._gone.clear()
        self._first_look = True
        self.listed_ms.clear()
        self._edited_customers.clear()
        self._excused |= set(self._world.stripe.invoices)

    def check_not_lowered(self) -> None:
        """Check that a ledger that has lost usage has given nothing back."""
        if not self._world.losses:
            return
        billed = self._by_sku(self.billed())
        taken_off = self._world.books.credited_since(self._lost_ms)
        for key, floor in self._floor.items():
            gone = self._world.stripe.customers[key[0]].get("deleted")
            if gone or key[0] in self.accepted | self._edited_customers:
                continue
            least, now = floor + taken_off[key], billed.get(key, Decimal())
            self.require(now >= least, f"{key} was lowered to {now}, below {least}, after a loss")

    def billed(self) -> Sums:
        """Add up the lines of ours on all invoices, void ones included."""
        found: Sums = defaultdict(Decimal)
        for invoice in self._world.stripe.invoices.values():
            if self.is_ours(invoice):
                for line in invoice["lines"]:
                    if key := line["metadata"].get("gw_line"):
                        sku, (_, price) = key.split("~")[0], self.price(line)
                        found[invoice["customer"], sku, price] += self.quantity(line)
        return found

    @staticmethod
    def _by_sku(sums: Sums) -> dict[tuple[str, str], Decimal]:
        found: defaultdict[tuple[str, str], Decimal] = defaultdict(Decimal)
        for (customer, sku, _), quantity in sums.items():
            found[customer, sku] += quantity
        return dict(found)

    # At rest

    async def look(self) -> None:
        """Learn which months the ledger has, and which are sealed.

        The seal of a month lists all invoices of its customer, so from then on the ledger knows recent months.
        """
        ledger = self._world.ledger
        for customer in self._world.customers:
            for month in await ledger.periods.list_retained(customer):
                self._world.books.page.months.add((customer, month))
                snapshot = await ledger.periods.snapshot(customer, month)
                if snapshot.customer_deleted:
                    self._gone.add(customer)
                if snapshot.state is PeriodState.SEALED:
                    if not self._first_look and (customer, month) not in self.sealed:
                        self.listed_ms.setdefault(customer, self._world.now)
                    self.sealed.add((customer, month))
                    if snapshot.customer_deleted and snapshot.invoice is None:
                        self.settled[customer, month] = snapshot
                else:
                    self.sealed.discard((customer, month))
        self._first_look = False
        self.check_not_lowered()

    def require_curable(self, snapshot: Snapshot, names_a_cure: bool) -> None:
        """Check that a parked period says what a person can do, or goes on once it is woken."""
        key = (snapshot.customer, str(snapshot.period), str(snapshot.parked_reason))
        self._stuck[key] += 1
        stuck = self._stuck[key] > PATIENCE and not names_a_cure
        self.require(not stuck, f"{key} is stuck for ever")

    def check_unbillable(self, snapshot: Snapshot) -> None:
        """Check that only a deleted customer's usage is said to be unbillable."""
        gone = self._world.stripe.customers[snapshot.customer].get("deleted")
        self.require(bool(gone), f"{snapshot.customer} is said to be deleted")


def _month(invoice: Invoice) -> Period:
    return Period.parse(invoice["metadata"]["gw_period"])
