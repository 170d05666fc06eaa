"""The oracle: computes what is owed from invoices and ledger, sharing no code with the product."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any

from billing.invoicing.snapshot import PeriodState
from billing.ledger import Adjustment, NewAdjustment
from billing.usage import CustomerId, LineKey, Period, UsageDelta
from tests.simulation.wire import HOUR_MS

if TYPE_CHECKING:
    from tests.simulation.world import World

# A decision is carried out within this time, or it is made again.
DECISION_MS = 600_000

Sums = defaultdict[tuple[CustomerId, str], Decimal]


class Violation(AssertionError):
    """An invariant is broken."""


class Oracle:
    """Keeps its own records of usage, adjustments and foreign lines."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._owed: Sums = defaultdict(Decimal)
        self._adjustments: dict[str, Adjustment] = {}
        self._foreign: dict[str, tuple[str, int]] = {}
        self._checked: set[str] = set()
        self.edited: dict[str, int] = {}
        self.rewound = False
        self.arrived_late: set[str] = set()
        self._excusable: set[str] = set()
        self.duplicates_found = 0
        self._shown: Sums = defaultdict(Decimal)

    def require(self, holds: bool, otherwise: str) -> None:
        """Stop the schedule unless *holds*."""
        if not holds:
            raise Violation(otherwise)

    def record_usage(self, delta: UsageDelta) -> None:
        """Count a report that was acknowledged for the first time."""
        self._owed[delta.customer, delta.sku] += delta.quantity

    def record_opened_period(self, period: Period) -> None:
        """Check that *period*, for which usage opened an invoice, still accepts usage."""
        ended_ms = int(period.end.timestamp() * 1000)
        self.require(self._world.now < ended_ms + HOUR_MS, f"{period} was begun after it had ended")

    def record_adjustment(self, made: Adjustment, requested: NewAdjustment) -> None:
        """Count an adjustment that was acknowledged."""
        if made.id not in self._adjustments:
            self._adjustments[made.id] = made
            self._owed[requested.customer, f"adj:{made.id}"] += requested.quantity

    def purge_adjustments(self) -> None:
        """Forget all adjustments: the ledger has lost them, and the next one gets a number of theirs."""
        lost = {f"adj:{id_}" for id_ in self._adjustments}
        self._owed = defaultdict(
            Decimal, {key: owed for key, owed in self._owed.items() if key[1] not in lost}
        )
        self._adjustments.clear()

    def record_foreign_line(self, invoice: str, line: dict[str, Any]) -> None:
        """Record a person's line: from now on nothing else may change it."""
        self._foreign[line["id"]] = invoice, line["amount"]

    def record_deleted_draft(self, invoice: str) -> None:
        """Forget the foreign lines of a draft that a person deleted."""
        self._foreign = {line: at for line, at in self._foreign.items() if at[0] != invoice}

    def check_lines(self, *, knowing: bool = False) -> None:
        """Check at every moment: no line of ours is duplicated, and no foreign line has changed.

        *knowing*: the last write came from a worker that knows of every rewind.
        """
        invoices = self._world.stripe.invoices
        for invoice in invoices.values():
            count_by_key = Counter(
                line["metadata"]["gw_line"] for line in invoice["lines"] if line["metadata"]
            )
            doubled = [key for key, count in count_by_key.items() if count > 1]
            ok = not doubled or self._excused(invoice, knowing=knowing)
            self.require(ok, f"{invoice['id']} doubles {doubled}")
            self.duplicates_found += bool(doubled)
        for foreign, (owner, amount) in self._foreign.items():
            lines = invoices[owner]["lines"] if owner in invoices else []
            found = [line["amount"] for line in lines if line["id"] == foreign]
            self.require(found == [amount], f"foreign line {foreign} was changed")

    def _excused(self, invoice: dict[str, Any], *, knowing: bool) -> bool:
        """Return True if a duplicate is allowed: a lost or abandoned request may arrive late.

        An invoice that we finalize never has one. If a person finalizes at that moment, it is billed twice and
        credited on the next invoice.
        """
        if invoice["id"] in self._world.stripe.finalized_by_us:
            return False
        if self._world.mode.refusals or invoice["id"] in self._excusable:
            return True
        if self.rewound and (not knowing or invoice["id"] in self.arrived_late):
            self._excusable.add(invoice["id"])
            return True
        return False

    async def check_finalized(self, invoice_id: str) -> None:
        """Check that an invoice that we finalized agrees with the ledger, except after edits and rewinds."""
        world = self._world
        invoice = world.stripe.invoices.get(invoice_id)
        if invoice is None or invoice["status"] == "draft" or invoice_id in self._checked:
            return
        self._checked.add(invoice_id)
        period = invoice["metadata"]["gw_period"]
        known = {
            str(period): period
            for period in await world.ledger.periods.list_retained(invoice["customer"])
        }
        if self.rewound and period not in known:
            return
        snapshot = await world.ledger.periods.snapshot(invoice["customer"], known[period])
        coming = [
            request
            for request in world.stripe.undelivered(invoice_id)
            if "finalize" not in request.path
        ]
        self.require(not coming, f"{invoice_id} finalized while {coming} may still arrive")
        on_hold = snapshot.hold is not None and world.now - snapshot.hold.since_ms > DECISION_MS
        self.require(not on_hold, f"{invoice_id} finalized under a hold")
        edited = world.now - self.edited.get(invoice_id, 0) < DECISION_MS
        if not (edited or self.rewound or world.mode.cramped):
            counted = {key: quantity for key, quantity in snapshot.totals.items() if quantity}
            self._require_agreement(invoice, counted)

    async def check_idle(self) -> None:
        """Check when nothing is due: Stripe is synced, and each draft agrees with the ledger."""
        world = self._world
        for customer in {customer for customer, _ in self._owed}:
            for period in await world.ledger.periods.list_retained(customer):
                snapshot = await world.ledger.periods.snapshot(customer, period)
                if snapshot.state is PeriodState.SEALED:
                    continue
                # After a rewind a period is verified at its next write, not before.
                synced = snapshot.up_to_date or (
                    self.rewound and snapshot.version == snapshot.synced_version
                )
                self.require(synced and snapshot.batch is None, f"{customer} {period} forgotten")
                # A request lost by a rewind may restore an old quantity, until the draft is verified.
                late = self.rewound and snapshot.invoice in self.arrived_late
                meddled = world.mode.edits or world.mode.cramped or late
                if not meddled and snapshot.up_to_date:
                    invoice = world.stripe.invoices.get(snapshot.invoice or "", {"lines": ()})
                    counted = {
                        key: quantity for key, quantity in snapshot.totals.items() if quantity
                    }
                    self._require_agreement(invoice, counted)

    def _require_agreement(
        self, invoice: dict[str, Any], counted: Mapping[LineKey, Decimal]
    ) -> None:
        ours = [line for line in invoice["lines"] if line["metadata"]]
        if len(ours) > len({line["metadata"]["gw_line"] for line in ours}):
            self.require(
                self.rewound, f"{invoice['id']} duplicates a line and is not verified any more"
            )
            return  # judged by `check_lines`
        billed = {line["metadata"]["gw_line"]: self._quantity(line) for line in ours}
        self.require(counted == billed, f"invoice has {billed}, ledger has {counted}")

    def record_billed(self) -> None:
        """Remember what Stripe shows: `check_not_lowered` compares with it."""
        self._shown = self._billed()[0]

    def check_not_lowered(self) -> None:
        """Check that nothing was lowered or credited since `record_billed`."""
        billed = self._billed()[0]
        lower = {key: billed[key] for key, shown in self._shown.items() if billed[key] < shown}
        self.require(not lower, f"lowered by a ledger that has lost usage: {lower}")

    async def check_end(self) -> None:
        """Check at the end: every recorded unit is billed once, and the ledger has the same totals."""
        self.check_lines()
        billed, amounts = self._billed()
        world = self._world
        if world.mode.cramped:
            owed_money: Counter[str] = Counter()
            for (customer, key), quantity in self._owed.items():
                owed_money[customer] += int(quantity * self._unit(key))
            self.require(owed_money == amounts, f"owed {dict(owed_money)}, billed {dict(amounts)}")
        else:
            self.require(_clean(billed) == _clean(self._owed), _difference(self._owed, billed))
        self.require(
            _clean(await self._ledger_totals()) == _clean(self._owed),
            "the ledger lost or doubled usage",
        )
        if not (world.mode.edits or world.mode.rewinds or world.mode.cramped):
            self._check_adjustments()
        await self._check_no_drafts()

    def _check_adjustments(self) -> None:
        """Check that adjustments are on the invoice of their period: only a person can finalize it without them."""
        standing = {
            line["metadata"]["gw_line"]: invoice["metadata"]["gw_period"]
            for invoice in self._world.stripe.invoices.values()
            for line in invoice["lines"]
            if line["metadata"]
        }
        for correction in self._adjustments.values():
            found = standing.get(correction.line)
            self.require(
                found == str(correction.period),
                f"{correction.id} of {correction.period} stands on {found}",
            )

    def _billed(self) -> tuple[Sums, Counter[str]]:
        billed: Sums = defaultdict(Decimal)
        amounts: Counter[str] = Counter()
        for invoice in self._world.stripe.invoices.values():
            for line in invoice["lines"]:
                if key := line["metadata"].get("gw_line"):
                    name = key.split("~")[0]
                    amounts[invoice["customer"]] += line["amount"]
                    if name != "rest":
                        billed[invoice["customer"], name] += self._quantity(line)
        return billed, amounts

    def _quantity(self, line: dict[str, Any]) -> Decimal:
        """Return the billed quantity; an amount that a person typed counts as the quantity that it buys."""
        if line["pricing"] is not None:
            return Decimal(line["quantity_decimal"])
        unit = self._unit(line["metadata"]["gw_line"].split("~")[0])
        stated = Decimal(line["metadata"]["gw_quantity"])
        meant = int((stated * unit).to_integral_value(ROUND_HALF_UP))
        by_amount = stated < 0 or "gw_amount" in line["metadata"]
        return stated if by_amount and meant == line["amount"] else line["amount"] / unit

    def _unit(self, key: str) -> Decimal:
        return self._world.prices["b" if key.startswith("adj:") else key].unit_amount

    async def _ledger_totals(self) -> Sums:
        found: Sums = defaultdict(Decimal)
        for customer in {customer for customer, _ in self._owed}:
            for period in await self._world.ledger.periods.list_retained(customer):
                snapshot = await self._world.ledger.periods.snapshot(customer, period)
                for key, quantity in snapshot.totals.items():
                    found[customer, key.split("~")[0]] += quantity
        return found

    async def _check_no_drafts(self) -> None:
        """Check that no draft of ours is left and every ended period is sealed."""
        drafts = [
            invoice["id"]
            for invoice in self._world.stripe.invoices.values()
            if invoice["status"] == "draft"
        ]
        self.require(not drafts, f"drafts left: {drafts}")


def _clean(sums: Sums) -> dict[tuple[CustomerId, str], Decimal]:
    return {key: value for key, value in sums.items() if value}


def _difference(owed: Sums, billed: Sums) -> str:
    wrong = {key: (owed.get(key, 0), billed.get(key, 0)) for key in {*owed, *billed}}
    return "owed, billed: " + repr({key: pair for key, pair in wrong.items() if pair[0] != pair[1]})
