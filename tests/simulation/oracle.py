"""What is owed, by its own arithmetic: it reads invoices and ledger, and shares no code with the plan."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any

from billing.invoicing.snapshot import PeriodState
from billing.ledger import Adjustment, NewAdjustment
from billing.usage import Period, UsageDelta
from tests.simulation.stripe_model import HOUR_MS

if TYPE_CHECKING:
    from tests.simulation.world import World

# A decision takes no longer than this to be carried out, or it is taken anew.
AT_ONCE_MS = 600_000

Sums = defaultdict[tuple[str, str], Decimal]


class Violation(AssertionError):
    """Something happened that must never happen."""


class Oracle:
    """Keeps its own books of usage, corrections and other people's lines."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._owed: Sums = defaultdict(Decimal)
        self._corrections: dict[str, Adjustment] = {}
        self._foreign: dict[str, tuple[str, int]] = {}
        self._checked: set[str] = set()
        self.edited: dict[str, int] = {}
        self.rewound = False
        self.arrived_late: set[str] = set()
        self._excusable: set[str] = set()
        self.doubles_seen = 0

    def must(self, holds: bool, otherwise: str) -> None:
        """Stop the schedule unless *holds*."""
        if not holds:
            raise Violation(otherwise)

    def used(self, delta: UsageDelta) -> None:
        """A report that was acknowledged for the first time."""
        self._owed[delta.customer, delta.sku] += delta.quantity

    def began(self, period: Period) -> None:
        """Usage made a bill for *period*, which must still be able to take more."""
        ended_ms = int(period.end.timestamp() * 1000)
        self.must(self._world.now < ended_ms + HOUR_MS, f"{period} was begun after it had ended")

    def adjusted(self, made: Adjustment, asked: NewAdjustment) -> None:
        """A correction that was acknowledged."""
        if made.id not in self._corrections:
            self._corrections[made.id] = made
            self._owed[asked.customer, f"adj:{made.id}"] += asked.quantity

    def somebody_added(self, invoice: str, line: dict[str, Any]) -> None:
        """A person's line: from now on nobody else may touch it."""
        self._foreign[line["id"]] = invoice, line["amount"]

    def somebody_deleted(self, invoice: str) -> None:
        """A person deleted a draft with everything on it."""
        self._foreign = {line: at for line, at in self._foreign.items() if at[0] != invoice}

    def look(self, *, knowing: bool = False) -> None:
        """At every moment: no line of ours stands twice, and nobody else's line has changed.

        *knowing*: what was just written came from a worker that knows of every rewind.
        """
        invoices = self._world.stripe.invoices
        for invoice in invoices.values():
            seen = Counter(
                line["metadata"]["gw_line"] for line in invoice["lines"] if line["metadata"]
            )
            doubled = [key for key, count in seen.items() if count > 1]
            ok = not doubled or self._excused(invoice, knowing=knowing)
            self.must(ok, f"{invoice['id']} doubles {doubled}")
            self.doubles_seen += bool(doubled)
        for line, (invoice, amount) in self._foreign.items():
            here = [
                each for each in invoices.get(invoice, {"lines": ()})["lines"] if each["id"] == line
            ]
            self.must(
                [each["amount"] for each in here] == [amount], f"{line} of a person was touched"
            )

    def _excused(self, invoice: dict[str, Any], *, knowing: bool) -> bool:
        """A request that was forgotten or given up may arrive late and stand twice, for a while.

        What we finalize never shows it. A person who finalizes in that very moment bills it twice, and
        the next bill gives it back.
        """
        if invoice["id"] in self._world.stripe.finalized_by_us:
            return False
        if self._world.mode.refusals or invoice["id"] in self._excusable:
            return True
        if self.rewound and (not knowing or invoice["id"] in self.arrived_late):
            self._excusable.add(invoice["id"])
            return True
        return False

    async def finalized(self, invoice_id: str) -> None:
        """What we finalize says exactly what the ledger says; people and rewinds apart."""
        world = self._world
        invoice = world.stripe.invoices.get(invoice_id)
        if invoice is None or invoice["status"] == "draft" or invoice_id in self._checked:
            return
        self._checked.add(invoice_id)
        period = invoice["metadata"]["gw_period"]
        known = {str(each): each for each in await world.ledger.periods(invoice["customer"])}
        if self.rewound and period not in known:
            return
        snapshot = await world.ledger.peek(invoice["customer"], known[period])
        coming = [
            each for each in world.stripe.undelivered(invoice_id) if "finalize" not in each.path
        ]
        self.must(not coming, f"{invoice_id} finalized while {coming} may still arrive")
        held = snapshot.hold is not None and world.now - snapshot.hold.since_ms > AT_ONCE_MS
        self.must(not held, f"{invoice_id} finalized under a hold")
        edited = world.now - self.edited.get(invoice_id, 0) < AT_ONCE_MS
        if not (edited or self.rewound or world.mode.cramped):
            counted = {key: quantity for key, quantity in snapshot.totals.items() if quantity}
            self._must_agree(invoice, counted)

    async def at_rest(self) -> None:
        """When nothing is due, Stripe has been told everything: each draft says what the ledger says."""
        world = self._world
        for customer in {customer for customer, _ in self._owed}:
            for period in await world.ledger.periods(customer):
                snapshot = await world.ledger.peek(customer, period)
                if snapshot.state is PeriodState.SEALED:
                    continue
                # After a rewind a period is verified when it is next written, and not before.
                told = snapshot.up_to_date or (self.rewound and snapshot.version == snapshot.synced)
                self.must(told and snapshot.flight is None, f"{customer} {period} forgotten")
                # A request that was forgotten may put an old quantity back, until the draft is looked at.
                late = self.rewound and snapshot.invoice in self.arrived_late
                meddled = world.mode.edits or world.mode.cramped or late
                if not meddled and snapshot.up_to_date:
                    invoice = world.stripe.invoices.get(snapshot.invoice or "", {"lines": ()})
                    counted = {
                        key: quantity for key, quantity in snapshot.totals.items() if quantity
                    }
                    self._must_agree(invoice, counted)

    def _must_agree(self, invoice: dict[str, Any], counted: Mapping[str, Decimal]) -> None:
        ours = [line for line in invoice["lines"] if line["metadata"]]
        if len(ours) > len({line["metadata"]["gw_line"] for line in ours}):
            self.must(
                self.rewound, f"{invoice['id']} doubles a line, and nobody looks at it any more"
            )
            return  # judged by `look`
        billed = {line["metadata"]["gw_line"]: self._quantity(line) for line in ours}
        self.must(counted == billed, f"invoice has {billed}, ledger has {counted}")

    async def settle(self) -> None:
        """In the end: every unit counted is billed once, and the ledger remembers the same."""
        self.look()
        billed, amounts = self._billed()
        world = self._world
        if world.mode.cramped:
            owed_money: Counter[str] = Counter()
            for (customer, key), quantity in self._owed.items():
                owed_money[customer] += int(quantity * self._unit(key))
            self.must(owed_money == amounts, f"owed {dict(owed_money)}, billed {dict(amounts)}")
        else:
            self.must(_clean(billed) == _clean(self._owed), _difference(self._owed, billed))
        self.must(
            _clean(await self._remembered()) == _clean(self._owed),
            "the ledger lost or doubled usage",
        )
        if not (world.mode.edits or world.mode.rewinds or world.mode.cramped):
            self._corrections_stand()
        await self._no_orphans()

    def _corrections_stand(self) -> None:
        """On the bill of the month that they were made for: nobody but a person can finalize it without."""
        standing = {
            line["metadata"]["gw_line"]: invoice["metadata"]["gw_period"]
            for invoice in self._world.stripe.invoices.values()
            for line in invoice["lines"]
            if line["metadata"]
        }
        for each in self._corrections.values():
            found = standing.get(each.line)
            self.must(found == str(each.period), f"{each.id} of {each.period} stands on {found}")

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
        """What a line bills; a bare amount that a person made counts as what it buys."""
        if line["pricing"] is not None:
            return Decimal(line["quantity_decimal"])
        unit = self._unit(line["metadata"]["gw_line"].split("~")[0])
        told = Decimal(line["metadata"]["gw_quantity"])
        meant = int((told * unit).to_integral_value(ROUND_HALF_UP))
        return told if told < 0 and meant == line["amount"] else line["amount"] / unit

    def _unit(self, key: str) -> Decimal:
        return self._world.prices["b" if key.startswith("adj:") else key].unit_amount

    async def _remembered(self) -> Sums:
        found: Sums = defaultdict(Decimal)
        for customer in {customer for customer, _ in self._owed}:
            for period in await self._world.ledger.periods(customer):
                snapshot = await self._world.ledger.peek(customer, period)
                for key, quantity in snapshot.totals.items():
                    found[customer, key.split("~")[0]] += quantity
        return found

    async def _no_orphans(self) -> None:
        """No draft of ours is left, and no period that has an end is unsealed."""
        drafts = [
            each["id"] for each in self._world.stripe.invoices.values() if each["status"] == "draft"
        ]
        self.must(not drafts, f"drafts left: {drafts}")


def _clean(sums: Sums) -> dict[tuple[str, str], Decimal]:
    return {key: value for key, value in sums.items() if value}


def _difference(owed: Sums, billed: Sums) -> str:
    wrong = {key: (owed.get(key, 0), billed.get(key, 0)) for key in {*owed, *billed}}
    return "owed, billed: " + repr({key: pair for key, pair in wrong.items() if pair[0] != pair[1]})
