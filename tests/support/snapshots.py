"""Builders of snapshots, lines and invoices for unit tests."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from billing.invoicing.remote_invoice import RemoteInvoice
from billing.invoicing.request_batch import PlannedLine
from billing.invoicing.snapshot import PeriodState, Snapshot, StripeLine
from billing.usage import REST_LINE, CustomerId, LineKey, Period, Price

NOVEMBER = Period(2026, 11)


def price(sku: str, unit_amount: str = "2", currency: str = "usd") -> Price:
    """Return the price ``price_<sku>``, in minor units."""
    return Price(f"price_{sku}", sku, currency, Decimal(unit_amount), f"The {sku}", "h")


def snapshot(totals: Mapping[str, str] | None = None, **facts: Any) -> Snapshot:
    """Return an open November with *totals*, each line at ``price_<sku>``; *facts* replace other fields."""
    counted = {LineKey(key): Decimal(quantity) for key, quantity in (totals or {}).items()}
    prices = {key: f"price_{key.split('~')[0].replace(':', '_')}" for key in counted}
    defaults: dict[str, Any] = {
        "customer": CustomerId("cus_1"),
        "period": NOVEMBER,
        "currency": "usd",
        "state": PeriodState.OPEN,
        "now_ms": 1_795_000_000_000,
        "epoch": "1:e",
        "version": "3:c",
        "synced_version": "2:b",
        "verify_requested": "0@1:e",
        "verify_done": "0@1:e",
        "invoice": "in_1",
        "invoice_generation": 0,
        "seq": 4,
        "in_doubt_since_ms": 0,
        "pending_deltas": 0,
        "oldest_pending_ms": None,
        "synced_ms": None,
        "hold": None,
        "parked_reason": None,
        "attempts": 0,
        "crashes": 1,
        "totals": counted,
        "prices": prices,
        "lines": {},
        "batch": None,
    }
    return Snapshot(**{**defaults, **facts})


def stripe_line(
    key: str, quantity: str, amount: int, price_id: str | None = None
) -> tuple[LineKey, StripeLine]:
    """Return one of our lines as Stripe has it, with its key."""
    named = f"price_{key.split('~', maxsplit=1)[0]}" if price_id is None else price_id
    return LineKey(key), StripeLine(f"il_{key}", Decimal(quantity), named, amount)


def planned_line(quantity: str, price_id: str, amount: int) -> PlannedLine:
    """Return a line as the invoice should have it."""
    return PlannedLine(Decimal(quantity), price_id, amount)


def line_body(line_id: str, amount: int, key: str | None = None, **facts: Any) -> dict[str, Any]:
    """Return a Stripe ``line_item``: by price if *facts* name one, else a bare amount."""
    metadata = {"gw_line": key} if key else {}
    if key and key != REST_LINE:
        metadata["gw_price"] = f"price_{key}"
    if "sent" in facts:
        metadata["gw_quantity"] = facts["sent"]
    named = facts.get("price")
    return {
        "id": line_id,
        "amount": amount,
        "quantity": 1,
        "quantity_decimal": facts.get("quantity", "1"),
        "pricing": {"price_details": {"price": named}} if named else None,
        "metadata": metadata,
    }


def remote_invoice(*lines: dict[str, Any], status: str = "draft", **metadata: str) -> RemoteInvoice:
    """Return an invoice as Stripe shows it."""
    body = {
        "id": "in_1",
        "status": status,
        "created": 1,
        "metadata": metadata,
        "lines": {"data": list(lines), "has_more": False},
    }
    return RemoteInvoice.from_stripe(body)
