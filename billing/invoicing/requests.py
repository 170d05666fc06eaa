"""What a plan comes to as requests: written down before they are sent, under keys that anybody finds again. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from billing.invoicing import metadata_keys
from billing.invoicing.diff import Added, Difference, Prices, Updated, in_calls, is_by_amount
from billing.invoicing.snapshot import Flight, Op, OpKind, PlannedLine, Snapshot, StripeLine
from billing.money import plain
from billing.usage import REST, LineKey, Period


def bulk(
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
        metadata_keys.SEQ: str(seq),
        metadata_keys.VERSION: snapshot.version,
        metadata_keys.EPOCH: snapshot.epoch,
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


def create(snapshot: Snapshot) -> Flight:
    """The request that makes the period's draft; the same whenever it is planned, so that it replays."""
    params = {
        "customer": snapshot.customer,
        "currency": snapshot.currency,
        "auto_advance": False,
        "collection_method": "charge_automatically",
        "pending_invoice_items_behavior": "exclude",
        "description": f"Usage of {month(snapshot.period)}",
        "metadata": {metadata_keys.PERIOD: str(snapshot.period), metadata_keys.SEQ: "0"},
    }
    op = Op(OpKind.CREATE, "POST", "/v1/invoices", params, f"{_key_prefix(snapshot)}:create")
    return _flight(snapshot, snapshot.seq, (op,), {})


def finalize(snapshot: Snapshot, lines: Mapping[LineKey, PlannedLine], *, seq: int) -> Flight:
    """The request that turns the draft into a bill; from there on Stripe collects it."""
    path = f"/v1/invoices/{snapshot.invoice}/finalize"
    op = Op(OpKind.FINALIZE, "POST", path, {"auto_advance": True}, key_of(snapshot, seq, 0))
    return _flight(snapshot, seq, (op,), lines)


def delete(
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
        tags = {
            metadata_keys.LINE: key,
            metadata_keys.QUANTITY: plain(line.quantity),
            metadata_keys.PRICE: line.price,
        }
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
    return [(kind, chunk) for chunk in in_calls(lines)]


def _key_prefix(snapshot: Snapshot) -> str:
    return f"{metadata_keys.OUR_KEYS}{snapshot.customer}:{snapshot.period}:{snapshot.invoice_generation}"


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
