"""Ledger totals against what Stripe shows: the difference, as requests to send. Pure.

A line of zero quantity is not on the invoice; a positive one counts by its price; a negative one is a
bare amount, because Stripe takes no negative quantity. An invoice holds at most 250 lines, other
people's included: what does not fit is billed as one line, ``rest``, and stays apart in the ledger.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from billing import marks
from billing.money import line_amount, plain
from billing.seen import REST
from billing.snapshot import Flight, Op, OpKind, PlannedLine, Snapshot, StripeLine
from billing.usage import LineKey, Period, Price

MAX_LINES = 250
"""Stripe's documentation, "Create an invoice item": at most 250 items on an invoice."""

LINES_PER_CALL = 50
"""Stripe documents no bound for a bulk call; small enough to be answered in good time."""

Prices = Mapping[str, Price]
"""Prices by their id."""


@dataclass(frozen=True, slots=True)
class Added:
    """A line that the invoice lacks."""

    key: LineKey
    line: PlannedLine


@dataclass(frozen=True, slots=True)
class Updated:
    """A line that stands with other figures: *was* becomes *line*."""

    key: LineKey
    line: PlannedLine
    was: StripeLine


@dataclass(frozen=True, slots=True)
class Difference:
    """What has to happen for the invoice to say what the ledger says."""

    removed: Sequence[tuple[LineKey, StripeLine]] = ()
    updated: Sequence[Updated] = ()
    added: Sequence[Added] = ()

    def __bool__(self) -> bool:
        return bool(self.removed or self.updated or self.added)

    @property
    def calls(self) -> int:
        """How many requests it takes."""
        return sum(len(_chunks(part)) for part in (self.removed, self.updated, self.added))


def wanted(
    snapshot: Snapshot, prices: Prices, *, room: int = MAX_LINES
) -> dict[LineKey, PlannedLine]:
    """The lines that the period's invoice should have, at most *room* (> 0) of them.

    *prices* holds every price that ``snapshot.prices`` names; KeyError otherwise.
    """
    lines = {
        key: _planned(quantity, prices[snapshot.prices[key]])
        for key, quantity in sorted(snapshot.totals.items(), key=_place)
        if quantity
    }
    if len(lines) <= room:
        return lines
    kept = dict(list(lines.items())[: room - 1])
    rest = [line for key, line in lines.items() if key not in kept]
    amount = sum(line.amount for line in rest)
    return {**kept, REST: PlannedLine(Decimal(len(rest)), "", amount)}


def difference(
    lines: Mapping[LineKey, PlannedLine],
    standing: Iterable[tuple[LineKey, StripeLine]],
) -> Difference:
    """What turns our *standing* lines (in Stripe's order) into *lines*; of a doubled one the oldest stays."""
    removed, updated = [], []
    seen: set[LineKey] = set()
    for key, was in standing:
        line = lines.get(key)
        if (
            line is None
            or key in seen
            or is_by_amount(key, line.quantity) != stands_by_amount(key, was)
        ):
            removed.append((key, was))
            continue
        seen.add(key)
        if not _matches(key, line, was):
            updated.append(Updated(key, line, was))
    added = [Added(key, line) for key, line in lines.items() if key not in seen]
    return Difference(removed, updated, added)


def needs_reading(snapshot: Snapshot) -> bool:
    """Whether the next flush has to see the invoice first.

    It does before any line is added (what shows beats what we remember, and room depends on other
    people's lines); changing and removing lines that we know is absolute and needs no reading.
    """
    keys = {key for key, quantity in snapshot.totals.items() if quantity}
    changes_form = any(
        is_by_amount(key, snapshot.totals[key]) != stands_by_amount(key, line)
        for key, line in snapshot.lines.items()
        if key in keys
    )
    unverified = snapshot.verify_requested != snapshot.verify_done
    return unverified or changes_form or REST in snapshot.lines or not keys <= snapshot.lines.keys()


def is_by_amount(key: LineKey, quantity: Decimal) -> bool:
    """Whether the line goes to Stripe as a bare amount and not as price times quantity."""
    return quantity < 0 or key == REST


def stands_by_amount(key: LineKey, was: StripeLine) -> bool:
    """Whether the line stands at Stripe as a bare amount, by our doing or a person's."""
    return is_by_amount(key, was.quantity) or not was.price


def bulk_flight(
    snapshot: Snapshot,
    change: Difference,
    lines: Mapping[LineKey, PlannedLine],
    prices: Prices,
    *,
    seq: int,
) -> Flight:
    """The requests of *change*, removals first so that the 250th line always has room."""
    described = _Describer(snapshot, prices)
    bodies = [
        *_bodies(
            OpKind.REMOVE_LINES, [(key, described.removed(was)) for key, was in change.removed]
        ),
        *_bodies(
            OpKind.UPDATE_LINES, [(each.key, described.updated(each)) for each in change.updated]
        ),
        *_bodies(OpKind.ADD_LINES, [(each.key, described.added(each)) for each in change.added]),
    ]
    mark = {
        marks.SEQ: str(seq),
        marks.VERSION: snapshot.version,
        marks.EPOCH: snapshot.epoch,
    }
    ops = tuple(
        Op(
            kind,
            "POST",
            f"/v1/invoices/{snapshot.invoice}/{kind}",
            {"lines": [body for _, body in chunk], "invoice_metadata": mark},
            key_of(snapshot, seq, n),
            tuple(key for key, _ in chunk),
        )
        for n, (kind, chunk) in enumerate(bodies)
    )
    return _flight(snapshot, seq, ops, lines)


def create_flight(snapshot: Snapshot) -> Flight:
    """The request that makes the period's draft; the same whenever it is planned, so that it replays."""
    params = {
        "customer": snapshot.customer,
        "currency": snapshot.currency,
        "auto_advance": False,
        "collection_method": "charge_automatically",
        "pending_invoice_items_behavior": "exclude",
        "description": f"Usage of {month(snapshot.period)}",
        "metadata": {marks.PERIOD: str(snapshot.period), marks.SEQ: "0"},
    }
    op = Op(OpKind.CREATE, "POST", "/v1/invoices", params, f"{_key_prefix(snapshot)}:create")
    return _flight(snapshot, snapshot.seq, (op,), {})


def finalize_flight(
    snapshot: Snapshot, lines: Mapping[LineKey, PlannedLine], *, seq: int
) -> Flight:
    """The request that turns the draft into a bill; from there on Stripe collects it."""
    path = f"/v1/invoices/{snapshot.invoice}/finalize"
    op = Op(OpKind.FINALIZE, "POST", path, {"auto_advance": True}, key_of(snapshot, seq, 0))
    return _flight(snapshot, seq, (op,), lines)


def delete_flight(
    snapshot: Snapshot,
    invoice: str,
    lines: Mapping[LineKey, PlannedLine],
    *,
    seq: int,
) -> Flight:
    """The request that deletes *invoice*, a draft of ours that is empty or one too many."""
    op = Op(OpKind.DELETE, "DELETE", f"/v1/invoices/{invoice}", {}, key_of(snapshot, seq, 0))
    return _flight(snapshot, seq, (op,), lines)


def key_of(snapshot: Snapshot, seq: int, index: int) -> str:
    """The idempotency key of one request: a compare-and-set at Stripe, since nothing in it is random."""
    return f"{_key_prefix(snapshot)}:{seq}:{index}"


def origin_of(key: LineKey, period: Period) -> Period:
    """The period whose usage the line bills: its own, or the one it was carried from."""
    _, marked, origin = key.rpartition("~")
    try:
        return Period.parse(origin) if marked else period
    except ValueError:  # a SKU may contain a tilde
        return period


def month(period: Period) -> str:
    """``November 2026``, as it is printed on the bill."""
    return f"{period.start:%B %Y}"


def _planned(quantity: Decimal, price: Price) -> PlannedLine:
    return PlannedLine(quantity, price.id, line_amount(quantity, price.unit_amount))


def _place(item: tuple[LineKey, Decimal]) -> tuple[int, str]:
    """Usage of the period first, then corrections, then what was carried from other periods."""
    key = item[0]
    return (1 if key.startswith("adj:") else 2 if "~" in key else 0), key


def _matches(key: LineKey, line: PlannedLine, was: StripeLine) -> bool:
    if is_by_amount(key, line.quantity):
        return (was.quantity, was.amount) == (line.quantity, line.amount)
    return (was.quantity, was.price) == (line.quantity, line.price)


@dataclass(frozen=True, slots=True)
class _Describer:
    """Writes lines as Stripe's bulk calls take them."""

    snapshot: Snapshot
    prices: Prices

    def removed(self, was: StripeLine) -> dict[str, Any]:
        return {"id": was.id, "behavior": "delete"}

    def updated(self, each: Updated) -> dict[str, Any]:
        return {"id": each.was.id, **self._figures(each.key, each.line)}

    def added(self, each: Added) -> dict[str, Any]:
        return {
            "description": self._description(each.key, each.line),
            "period": self._period(each.key),
            **self._figures(each.key, each.line),
        }

    def _figures(self, key: LineKey, line: PlannedLine) -> dict[str, Any]:
        tags = {marks.LINE: key, marks.QUANTITY: plain(line.quantity), marks.PRICE: line.price}
        metadata = {name: value for name, value in tags.items() if value}
        if is_by_amount(key, line.quantity):
            return {"amount": line.amount, "metadata": metadata}
        return {
            "pricing": {"price": line.price},
            "quantity_decimal": plain(line.quantity),
            "metadata": metadata,
        }

    def _description(self, key: LineKey, line: PlannedLine) -> str:
        if key == REST:
            return f"{line.quantity:f} further items"
        price = self.prices[line.price]
        name = price.description or price.sku
        if key.startswith("adj:"):
            return f"Correction: {name}"
        origin = origin_of(key, self.snapshot.period)
        name = name if origin == self.snapshot.period else f"{name} (usage of {month(origin)})"
        if line.quantity < 0:
            return f"{name}: credit for {plain(-line.quantity)} {price.unit or ''}".rstrip()
        return name

    def _period(self, key: LineKey) -> dict[str, int]:
        origin = origin_of(key, self.snapshot.period)
        return {"start": int(origin.start.timestamp()), "end": int(origin.end.timestamp()) - 1}


def _bodies(
    kind: OpKind,
    lines: list[tuple[LineKey, dict[str, Any]]],
) -> list[tuple[OpKind, list[tuple[LineKey, dict[str, Any]]]]]:
    return [(kind, chunk) for chunk in _chunks(lines)]


def _chunks(lines: Sequence[Any]) -> list[list[Any]]:
    return [list(lines[at : at + LINES_PER_CALL]) for at in range(0, len(lines), LINES_PER_CALL)]


def _key_prefix(snapshot: Snapshot) -> str:
    return f"{marks.OUR_KEYS}{snapshot.customer}:{snapshot.period}:{snapshot.invoice_generation}"


def _flight(
    snapshot: Snapshot,
    seq: int,
    ops: tuple[Op, ...],
    landed: Mapping[LineKey, PlannedLine],
) -> Flight:
    return Flight(
        seq=seq,
        version=snapshot.version,
        verify=snapshot.verify_requested,
        first_ms=snapshot.now_ms,
        ops=ops,
        landed=landed,
    )
