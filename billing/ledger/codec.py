"""Conversion of snapshots, holds, lines and request batches to and from the stored form."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import orjson

from billing.invoicing.request_batch import PlannedLine, RequestBatch, RequestKind, StripeRequest
from billing.invoicing.snapshot import Hold, PeriodState, Snapshot, StripeLine
from billing.money import format_decimal
from billing.usage import CustomerId, LineKey, Period


def decode_snapshot(customer: CustomerId, period: Period, raw: Sequence[Any]) -> Snapshot:
    """Decode the answer of ``snapshot`` in ``prelude.lua``."""
    now_ms, epoch, customer_fields, period_fields, totals, lines, batch = raw
    of_customer, header = decode_fields(customer_fields), decode_fields(period_fields)
    price_and_quantity = {
        LineKey(line): total.split(" ") for line, total in decode_fields(totals).items()
    }
    requested, verified = _verify_tokens(header, epoch.decode())
    snapshot = Snapshot(
        customer=customer,
        period=period,
        currency=of_customer.get("currency", ""),
        state=PeriodState(header.get("state", "open")),
        now_ms=now_ms,
        epoch=epoch.decode(),
        version=header.get("version", "0:0"),
        synced_version=header.get("synced") if header else "0:0",
        verify_requested=requested,
        verify_done=verified,
        invoice=header.get("invoice"),
        invoice_generation=header.integer("generation"),
        seq=header.integer("seq"),
        in_doubt_since_ms=header.integer("ambiguous_ms"),
        pending_deltas=header.integer("pending"),
        oldest_pending_ms=header.optional_integer("oldest_ms"),
        synced_ms=header.optional_integer("synced_ms"),
        hold=decode_hold(of_customer["hold"]) if "hold" in of_customer else None,
        parked_reason=header.get("stuck"),
        attempts=header.integer("attempts"),
        crashes=header.integer("crashes"),
        totals={line: Decimal(quantity) for line, (_, quantity) in price_and_quantity.items()},
        prices={line: price for line, (price, _) in price_and_quantity.items()},
        lines=_decode_lines(lines),
        batch=_decode_request_batch(dict(_pairs(batch))),
    )
    return _with_marks(snapshot, of_customer, header)


def _with_marks(snapshot: Snapshot, of_customer: "Fields", header: "Fields") -> Snapshot:
    """Add to *snapshot* what only some customers and periods have."""
    return replace(
        snapshot,
        conflicts=of_customer.integer("conflicts"),
        sync_requested="asked" in header,
        final="final" in header,
        rewound="rewound" in header,
        stripe_version=header.get("stripe_version", ""),
        customer_deleted="deleted_ms" in of_customer,
        edited_ms=header.optional_integer("edited_ms"),
        closed_ms=header.optional_integer("closed_ms"),
    )


def encode_hold_content(reason: str, by: str) -> str:
    """Encode a hold without its start time."""
    return orjson.dumps({"reason": reason, "by": by}).decode()


def encode_hold(hold: Hold) -> str:
    """Encode a hold as ``since_ms json``."""
    return f"{hold.since_ms} {encode_hold_content(hold.reason, hold.by)}"


def decode_hold(text: str) -> Hold:
    """Decode a hold stored as ``since_ms json``."""
    since_ms, _, content = text.partition(" ")
    return Hold(**orjson.loads(content), since_ms=int(since_ms))


def encode_lines(lines: Mapping[LineKey, StripeLine]) -> bytes:
    """Encode the invoice lines as JSON."""
    return orjson.dumps(
        {
            key: {
                "id": line.id,
                "quantity": format_decimal(line.quantity),
                "price": line.price,
                "amount": line.amount,
                **({"marked": line.metadata_price} if line.metadata_price else {}),
                **({"bare": True} if line.bare_amount else {}),
            }
            for key, line in lines.items()
        },
    )


def encode_request_batch(batch: RequestBatch) -> bytes:
    """Encode a request batch as JSON. The completed requests are stored in a separate field."""
    return orjson.dumps(
        {
            "seq": batch.seq,
            "version": batch.version,
            "verify": batch.verify,
            "first_ms": batch.prepared_ms,
            "ops": [
                [
                    request.kind,
                    request.method,
                    request.path,
                    request.params,
                    request.idempotency_key,
                    request.lines,
                ]
                for request in batch.requests
            ],
            "landed": {
                key: [format_decimal(line.quantity), line.price, line.amount]
                for key, line in batch.expected_lines.items()
            },
        },
    )


class Fields(dict[str, str]):
    """The fields of a hash, as text."""

    def integer(self, name: str) -> int:
        """Return a number, 0 if the field is missing."""
        return int(self.get(name, 0))

    def optional_integer(self, name: str) -> int | None:
        """Return a number, None if the field is missing."""
        return int(self[name]) if name in self else None


def _verify_tokens(header: Fields, epoch: str) -> tuple[str, str]:
    """Return the verification that is requested and the one that was completed last.

    A new epoch requests one for every period except sealed ones, which are never written again.
    """
    done = header.get("verified", f"0@{epoch}")
    sealed = header.get("state") == PeriodState.SEALED
    return done if sealed else f"{header.get('verify', '0')}@{epoch}", done


def _decode_lines(raw: bytes | None) -> dict[LineKey, StripeLine]:
    return {
        LineKey(key): StripeLine(
            line["id"],
            Decimal(line["quantity"]),
            line["price"],
            line["amount"],
            line.get("marked", ""),
            line.get("bare", False),
        )
        for key, line in orjson.loads(raw or b"{}").items()
    }


def _decode_request_batch(raw: Mapping[bytes, bytes]) -> RequestBatch | None:
    if not raw:
        return None
    stored = orjson.loads(raw[b"flight"])
    requests = tuple(
        StripeRequest(
            RequestKind(kind), method, path, params, key, tuple(lines), done=b"%d" % index in raw
        )
        for index, (kind, method, path, params, key, lines) in enumerate(stored["ops"])
    )
    expected_lines = {
        LineKey(key): PlannedLine(Decimal(quantity), price, amount)
        for key, (quantity, price, amount) in stored["landed"].items()
    }
    return RequestBatch(
        seq=stored["seq"],
        version=stored["version"],
        verify=stored["verify"],
        prepared_ms=stored["first_ms"],
        requests=requests,
        expected_lines=expected_lines,
    )


def decode_fields(flat: Sequence[bytes]) -> Fields:
    """Decode the answer of HGETALL in a script."""
    return Fields({name.decode(): value.decode() for name, value in _pairs(flat)})


def _pairs(flat: Sequence[bytes]) -> Iterable[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)
