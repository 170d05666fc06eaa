"""Snapshots and flights, to and from what the scripts keep."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import orjson

from billing.money import plain
from billing.snapshot import (
    Flight,
    Hold,
    Op,
    OpKind,
    PeriodState,
    PlannedLine,
    Snapshot,
    StripeLine,
)
from billing.usage import CustomerId, LineKey, Period


def snapshot_of(customer: CustomerId, period: Period, raw: Sequence[Any]) -> Snapshot:
    """The picture that the ``snapshot`` of ``prelude.lua`` answers."""
    now_ms, epoch, *rest = raw
    of_customer, header, totals, lines, flight = rest
    known, head = _texts(of_customer), _texts(header)
    counted = {LineKey(line): total.split(" ") for line, total in _texts(totals).items()}
    epoch = epoch.decode()
    sealed = head.get("state") == PeriodState.SEALED
    verified = head.get("verified", f"0@{epoch}")

    def number(name: str) -> int:
        return int(head.get(name, 0))

    def moment(name: str) -> int | None:
        return int(head[name]) if name in head else None

    return Snapshot(
        customer=customer,
        period=period,
        currency=known.get("currency", ""),
        state=PeriodState(head.get("state", "open")),
        now_ms=now_ms,
        epoch=epoch,
        version=head.get("version", "0:0"),
        synced=head.get("synced") if head else "0:0",
        # A new epoch asks for a verify of every period but those that nobody will write to again.
        verify_requested=verified if sealed else f"{head.get('verify', '0')}@{epoch}",
        verify_done=verified,
        invoice=head.get("invoice"),
        invoice_generation=number("generation"),
        seq=number("seq"),
        ambiguous_ms=number("ambiguous_ms"),
        pending_deltas=number("pending"),
        oldest_pending_ms=moment("oldest_ms"),
        synced_ms=moment("synced_ms"),
        hold=hold_of(known["hold"]) if "hold" in known else None,
        stuck=head.get("stuck"),
        attempts=number("attempts"),
        crashes=number("crashes"),
        totals={line: Decimal(quantity) for line, (_, quantity) in counted.items()},
        prices={line: price for line, (price, _) in counted.items()},
        lines=_lines(lines),
        flight=_flight(dict(_pairs(flight))),
        asked=bool(head.get("running") or head.get("waiting")),
    )


def hold_of(text: str) -> Hold:
    """The hold kept as ``since_ms json``."""
    since_ms, _, said = text.partition(" ")
    return Hold(**orjson.loads(said), since_ms=int(since_ms))


def lines_json(lines: Mapping[LineKey, StripeLine]) -> bytes:
    """Lines as they are kept."""
    return orjson.dumps(
        {
            key: {
                "id": line.id,
                "quantity": plain(line.quantity),
                "price": line.price,
                "amount": line.amount,
            }
            for key, line in lines.items()
        },
    )


def flight_json(flight: Flight) -> bytes:
    """A flight as it is kept; which of its requests are done is kept beside it."""
    return orjson.dumps(
        {
            "seq": flight.seq,
            "version": flight.version,
            "verify": flight.verify,
            "first_ms": flight.first_ms,
            "ops": [
                [op.kind, op.method, op.path, op.params, op.key, op.lines] for op in flight.ops
            ],
            "landed": {
                key: [plain(line.quantity), line.price, line.amount]
                for key, line in flight.landed.items()
            },
        },
    )


def _lines(raw: bytes | None) -> dict[LineKey, StripeLine]:
    return {
        LineKey(key): StripeLine(
            line["id"], Decimal(line["quantity"]), line["price"], line["amount"]
        )
        for key, line in orjson.loads(raw or b"{}").items()
    }


def _flight(raw: Mapping[bytes, bytes]) -> Flight | None:
    if not raw:
        return None
    kept = orjson.loads(raw[b"flight"])
    ops = tuple(
        Op(OpKind(kind), method, path, params, key, tuple(lines), done=b"%d" % index in raw)
        for index, (kind, method, path, params, key, lines) in enumerate(kept["ops"])
    )
    landed = {
        LineKey(key): PlannedLine(Decimal(quantity), price, amount)
        for key, (quantity, price, amount) in kept["landed"].items()
    }
    return Flight(kept["seq"], kept["version"], kept["verify"], kept["first_ms"], ops, landed)


def _texts(flat: Sequence[bytes]) -> dict[str, str]:
    # The shape of the id table rides along in the customer's hash and is text as well.
    return {name.decode(): value.decode() for name, value in _pairs(flat)}


def _pairs(flat: Sequence[bytes]) -> Iterable[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)
