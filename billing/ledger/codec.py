"""Snapshots and flights, to and from what the scripts keep."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import orjson

from billing.invoicing.snapshot import (
    Flight,
    Hold,
    Op,
    OpKind,
    PeriodState,
    PlannedLine,
    Snapshot,
    StripeLine,
)
from billing.money import plain
from billing.usage import CustomerId, LineKey, Period


def snapshot_of(customer: CustomerId, period: Period, raw: Sequence[Any]) -> Snapshot:
    """The picture that the ``snapshot`` of ``prelude.lua`` answers."""
    now_ms, epoch, of_customer, header, totals, lines, flight = raw
    known, head = _texts(of_customer), _texts(header)
    counted = {LineKey(line): total.split(" ") for line, total in _texts(totals).items()}
    asked, verified = _verifies(head, epoch.decode())
    return Snapshot(
        customer=customer,
        period=period,
        currency=known.get("currency", ""),
        state=PeriodState(head.get("state", "open")),
        now_ms=now_ms,
        epoch=epoch.decode(),
        version=head.get("version", "0:0"),
        synced=head.get("synced") if head else "0:0",
        verify_requested=asked,
        verify_done=verified,
        invoice=head.get("invoice"),
        invoice_generation=head.number("generation"),
        seq=head.number("seq"),
        ambiguous_ms=head.number("ambiguous_ms"),
        pending_deltas=head.number("pending"),
        oldest_pending_ms=head.moment("oldest_ms"),
        synced_ms=head.moment("synced_ms"),
        hold=hold_of(known["hold"]) if "hold" in known else None,
        stuck=head.get("stuck"),
        attempts=head.number("attempts"),
        crashes=head.number("crashes"),
        totals={line: Decimal(quantity) for line, (_, quantity) in counted.items()},
        prices={line: price for line, (price, _) in counted.items()},
        lines=_lines(lines),
        flight=_flight(dict(_pairs(flight))),
        conflicts=known.number("conflicts"),
        asked="asked" in head,
        final="final" in head,
    )


def hold_said(reason: str, by: str) -> str:
    """What is kept of a hold beside its beginning."""
    return orjson.dumps({"reason": reason, "by": by}).decode()


def hold_text(hold: Hold) -> str:
    """A hold as it is kept, ``since_ms json``."""
    return f"{hold.since_ms} {hold_said(hold.reason, hold.by)}"


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
                **({"marked": line.marked} if line.marked else {}),
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


class _Fields(dict[str, str]):
    """A hash of the ledger's."""

    def number(self, name: str) -> int:
        return int(self.get(name, 0))

    def moment(self, name: str) -> int | None:
        return int(self[name]) if name in self else None


def _verifies(head: _Fields, epoch: str) -> tuple[str, str]:
    """The verify that is asked for, and the one that was done last.

    A new epoch asks for one of every period but those that nobody will write to again.
    """
    done = head.get("verified", f"0@{epoch}")
    sealed = head.get("state") == PeriodState.SEALED
    return done if sealed else f"{head.get('verify', '0')}@{epoch}", done


def _lines(raw: bytes | None) -> dict[LineKey, StripeLine]:
    return {
        LineKey(key): StripeLine(
            line["id"],
            Decimal(line["quantity"]),
            line["price"],
            line["amount"],
            line.get("marked", ""),
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


def _texts(flat: Sequence[bytes]) -> _Fields:
    # The shape of the id table rides along in the customer's hash and is text as well.
    return _Fields({name.decode(): value.decode() for name, value in _pairs(flat)})


def _pairs(flat: Sequence[bytes]) -> Iterable[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)
