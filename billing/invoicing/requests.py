"""Builds request batches. They are stored before they are sent, under keys that any worker can recompute. Pure."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from billing.invoicing import metadata_keys
from billing.invoicing.diff import AddedLine, Diff, Prices, UpdatedLine, chunked, is_amount_line
from billing.invoicing.request_batch import PlannedLine, RequestBatch, RequestKind, StripeRequest
from billing.invoicing.snapshot import Snapshot, StripeLine
from billing.money import format_decimal
from billing.usage import ADJUSTMENT_PREFIX, REST_LINE, LineKey, Period

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
    replaced = [line for line in diff.updated if to.replaces(line)]
    updated = [line for line in diff.updated if not to.replaces(line)]
    removed = [*diff.removed, *((line.key, line.current) for line in replaced)]
    added = [*diff.added, *(AddedLine(line.key, line.line) for line in replaced)]
    bodies = {
        RequestKind.REMOVE_LINES: [(key, to.remove(line)) for key, line in removed],
        RequestKind.UPDATE_LINES: [(line.key, to.update(line)) for line in updated],
        RequestKind.ADD_LINES: [(line.key, to.add(line)) for line in added],
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
    for part in reversed(
        key.split("~")[1:]
    ):  # a SKU may contain a tilde, and a price may follow the period
        with suppress(ValueError):
            return Period.parse(part)
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
        key, line, current = updated.key, updated.line, updated.current
        if current.bare_amount or is_amount_line(key, line.quantity):
            return {"id": current.id, **self._by_amount(key, line)}
        # Stripe would refuse the name of a price that bills no new line, although the line has it.
        return {"id": current.id, **self._by_price(key, line, named=self._is_billable(line))}

    def replaces(self, updated: UpdatedLine) -> bool:
        """Return True if the line must be put there anew: by an amount, after a person changed its price."""
        line, current = updated.line, updated.current
        by_amount = current.bare_amount or is_amount_line(updated.key, line.quantity)
        return not (by_amount or current.price == line.price or self._is_billable(line))

    def add(self, added: AddedLine) -> Body:
        key, line, period = added.key, added.line, self._period(added.key)
        if is_amount_line(key, line.quantity) or not self._is_billable(line):
            return {"period": period, **self._by_amount(key, line)}
        name = self._name(key, line)
        return {"description": name, "period": period, **self._by_price(key, line, named=True)}

    def _is_billable(self, line: PlannedLine) -> bool:
        return not line.price or self.prices[line.price].billable

    def _by_price(self, key: LineKey, line: PlannedLine, *, named: bool) -> Body:
        pricing = {"pricing": {"price": line.price}} if named else {}
        quantity = {"quantity_decimal": format_decimal(line.quantity)}
        return {**pricing, **quantity, "metadata": self._metadata(key, line)}

    def _by_amount(self, key: LineKey, line: PlannedLine) -> Body:
        """Return the line as a bare amount; its words say what the amount is for, so they change with it."""
        metadata = self._metadata(key, line)
        if not is_amount_line(key, line.quantity):
            metadata[metadata_keys.AMOUNT] = str(line.amount)
        words = self._words(key, line)
        return {"description": words, "amount": line.amount, "metadata": metadata}

    def _metadata(self, key: LineKey, line: PlannedLine) -> dict[str, str]:
        tags = {
            metadata_keys.LINE: key,
            metadata_keys.QUANTITY: format_decimal(line.quantity),
            metadata_keys.PRICE: line.price,
        }
        return {name: value for name, value in tags.items() if value}

    def _words(self, key: LineKey, line: PlannedLine) -> str:
        """Return the description of a line by bare amount, which shows no quantity of its own."""
        if key == REST_LINE:
            return f"{line.quantity:f} further items"
        name = self._name(key, line)
        if key.startswith(ADJUSTMENT_PREFIX):
            return name
        quantity = f"{format_decimal(abs(line.quantity))} {self.prices[line.price].unit or ''}"
        return f"{name}: {'credit for ' if line.quantity < 0 else ''}{quantity}".rstrip()

    def _name(self, key: LineKey, line: PlannedLine) -> str:
        price = self.prices[line.price]
        name = price.description or price.sku
        if key.startswith(ADJUSTMENT_PREFIX):
            return f"Correction: {name}"
        origin = origin_period(key, self.snapshot.period)
        return name if origin == self.snapshot.period else f"{name} (usage of {month_name(origin)})"

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
