"""Builds request batches. They are stored before they are sent, under keys that any worker can recompute. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from billing.invoicing import metadata_keys
from billing.invoicing.diff import AddedLine, Diff, Prices, UpdatedLine, chunked, is_amount_line
from billing.invoicing.snapshot import (
    PlannedLine,
    RequestBatch,
    RequestKind,
    Snapshot,
    StripeLine,
    StripeRequest,
)
from billing.money import format_decimal
from billing.usage import REST_LINE, LineKey, Period

Body = dict[str, Any]


def edit_lines(
    snapshot: Snapshot,
    diff: Diff,
    lines: Mapping[LineKey, PlannedLine],
    prices: Prices,
    *,
    seq: int,
) -> RequestBatch:
    """Return the requests of *diff*; removals come first so that the 250th line always has room."""
    to = _LineSerializer(snapshot, prices)
    bodies = {
        RequestKind.REMOVE_LINES: [(key, to.remove(line)) for key, line in diff.removed],
        RequestKind.UPDATE_LINES: [(line.key, to.update(line)) for line in diff.updated],
        RequestKind.ADD_LINES: [(line.key, to.add(line)) for line in diff.added],
    }
    chunks = [(kind, chunk) for kind in bodies for chunk in chunked(bodies[kind])]
    metadata = {
        metadata_keys.SEQ: str(seq),
        metadata_keys.VERSION: snapshot.version,
        metadata_keys.EPOCH: snapshot.epoch,
    }
    requests = tuple(
        StripeRequest(
            kind,
            "POST",
            f"/v1/invoices/{snapshot.invoice}/{kind}",
            {"lines": [body for _, body in chunk], "invoice_metadata": metadata},
            idempotency_key(snapshot, seq, n),
            tuple(key for key, _ in chunk),
        )
        for n, (kind, chunk) in enumerate(chunks)
    )
    return _batch(snapshot, seq, requests, lines)


def create(snapshot: Snapshot) -> RequestBatch:
    """Return the request that creates the period's draft; it is always the same, so it replays."""
    params = {
        "customer": snapshot.customer,
        "currency": snapshot.currency,
        "auto_advance": False,
        "collection_method": "charge_automatically",
        "pending_invoice_items_behavior": "exclude",
        "description": f"Usage of {month_name(snapshot.period)}",
        "metadata": {metadata_keys.PERIOD: str(snapshot.period), metadata_keys.SEQ: "0"},
    }
    key = f"{_key_prefix(snapshot)}:create"
    request = StripeRequest(RequestKind.CREATE, "POST", "/v1/invoices", params, key)
    return _batch(snapshot, snapshot.seq, (request,), {})


def finalize(snapshot: Snapshot, lines: Mapping[LineKey, PlannedLine], *, seq: int) -> RequestBatch:
    """Return the request that finalizes the draft; from there on Stripe collects it."""
    path, key = f"/v1/invoices/{snapshot.invoice}/finalize", idempotency_key(snapshot, seq, 0)
    request = StripeRequest(RequestKind.FINALIZE, "POST", path, {"auto_advance": True}, key)
    return _batch(snapshot, seq, (request,), lines)


def delete(
    snapshot: Snapshot,
    invoice: str,
    lines: Mapping[LineKey, PlannedLine],
    *,
    seq: int,
) -> RequestBatch:
    """Return the request that deletes *invoice*, one of our drafts that is empty or surplus."""
    path, key = f"/v1/invoices/{invoice}", idempotency_key(snapshot, seq, 0)
    return _batch(
        snapshot, seq, (StripeRequest(RequestKind.DELETE, "DELETE", path, {}, key),), lines
    )


def idempotency_key(snapshot: Snapshot, seq: int, index: int) -> str:
    """Return the key of one request. It contains nothing random, so it is a compare-and-set at Stripe."""
    return f"{_key_prefix(snapshot)}:{seq}:{index}"


def origin_period(key: LineKey, period: Period) -> Period:
    """Return the period whose usage the line bills: *period*, or the one it was carried from."""
    _, tilde, origin = key.rpartition("~")
    try:
        return Period.parse(origin) if tilde else period
    except ValueError:  # a SKU may contain a tilde
        return period


def month_name(period: Period) -> str:
    """Return ``November 2026``, as printed on the invoice."""
    return f"{period.start:%B %Y}"


@dataclass(frozen=True, slots=True)
class _LineSerializer:
    """Serializes lines for Stripe's bulk calls."""

    snapshot: Snapshot
    prices: Prices

    def remove(self, line: StripeLine) -> Body:
        return {"id": line.id, "behavior": "delete"}

    def update(self, updated: UpdatedLine) -> Body:
        return {"id": updated.current.id, **self._pricing(updated.key, updated.line)}

    def add(self, added: AddedLine) -> Body:
        return {
            "description": self._description(added.key, added.line),
            "period": self._period(added.key),
            **self._pricing(added.key, added.line),
        }

    def _pricing(self, key: LineKey, line: PlannedLine) -> Body:
        tags = {
            metadata_keys.LINE: key,
            metadata_keys.QUANTITY: format_decimal(line.quantity),
            metadata_keys.PRICE: line.price,
        }
        metadata = {name: value for name, value in tags.items() if value}
        if is_amount_line(key, line.quantity):
            return {"amount": line.amount, "metadata": metadata}
        return {
            "pricing": {"price": line.price},
            "quantity_decimal": format_decimal(line.quantity),
            "metadata": metadata,
        }

    def _description(self, key: LineKey, line: PlannedLine) -> str:
        if key == REST_LINE:
            return f"{line.quantity:f} further items"
        price = self.prices[line.price]
        name = price.description or price.sku
        if key.startswith("adj:"):
            return f"Correction: {name}"
        origin = origin_period(key, self.snapshot.period)
        name = name if origin == self.snapshot.period else f"{name} (usage of {month_name(origin)})"
        if line.quantity < 0:
            return (
                f"{name}: credit for {format_decimal(-line.quantity)} {price.unit or ''}".rstrip()
            )
        return name

    def _period(self, key: LineKey) -> dict[str, int]:
        origin = origin_period(key, self.snapshot.period)
        return {"start": int(origin.start.timestamp()), "end": int(origin.end.timestamp()) - 1}


def _key_prefix(snapshot: Snapshot) -> str:
    of_draft = f"{snapshot.customer}:{snapshot.period}:{snapshot.invoice_generation}"
    return f"{metadata_keys.IDEMPOTENCY_PREFIX}{of_draft}"


def _batch(
    snapshot: Snapshot,
    seq: int,
    requests: tuple[StripeRequest, ...],
    expected_lines: Mapping[LineKey, PlannedLine],
) -> RequestBatch:
    return RequestBatch(
        seq=seq,
        version=snapshot.version,
        verify=snapshot.verify_requested,
        prepared_ms=snapshot.now_ms,
        requests=requests,
        expected_lines=expected_lines,
    )
