"""What each object looks like on the way out: a record laid over its defaults.

Keys that begin with an underscore are ours and never leave.
"""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from sandbox.account import ACCOUNT_ID, API_VERSION, Unit
from sandbox.defaults import DEFAULTS, Json, nothing
from sandbox.state import Record


def shape(unit: Unit, kind: str, record: Record) -> Json:
    """Return *record* as Stripe would show it."""
    if record.get("deleted"):
        return {"id": record["id"], "object": DEFAULTS[kind]["object"], "deleted": True}
    return SHAPES[kind](unit, record) if kind in SHAPES else _laid_over(kind, record)


def _laid_over(kind: str, record: Record) -> Json:
    out = {**DEFAULTS[kind], **record}
    for key in [key for key in out if key[0] == "_"]:
        del out[key]
    return out


def listed(url: str, data: Sequence[Any], *, has_more: bool = False) -> Json:
    """Return a list object."""
    return {"object": "list", "data": list(data), "has_more": has_more, "url": url}


def _customer(_unit: Unit, record: Record) -> Json:
    out = _laid_over("customers", record)
    out["invoice_prefix"] = record.get("invoice_prefix") or invoice_prefix(record["id"])
    return out


def invoice_prefix(customer: str) -> str:
    """Return the letters before the number on this customer's invoices."""
    return customer[-8:].upper().replace("_", "X")


def _price(_unit: Unit, record: Record) -> Json:
    out = _laid_over("prices", record)
    amount = Decimal(record["unit_amount_decimal"])
    out["unit_amount"] = int(amount) if amount == amount.to_integral_value() else None
    return out


def _invoice(unit: Unit, record: Record) -> Json:
    out = _laid_over("invoices", record)
    customer = record.get("_customer") or unit.find("customers", record["customer"]) or {}
    lines = record["_lines"]
    total = sum(line["amount"] for line in lines)
    balance = customer.get("balance", 0) if customer.get("currency") == record["currency"] else 0
    starting = record.get("starting_balance", balance)
    due = max(total + starting, 0) if total > 0 else 0
    out.update(
        customer_address=customer.get("address"),
        customer_email=customer.get("email"),
        customer_name=customer.get("name"),
        customer_phone=customer.get("phone"),
        lines=listed(
            f"/v1/invoices/{record['id']}/lines",
            [line_item(record, line) for line in lines[:10]],
            has_more=len(lines) > 10,  # noqa: PLR2004
        ),
        period_start=record.get("period_start", record["created"]),
        period_end=record.get("period_end", record["created"]),
        starting_balance=starting,
        status_transitions=nothing("finalized_at marked_uncollectible_at paid_at voided_at")
        | record.get("status_transitions", {}),
        subtotal=total,
        subtotal_excluding_tax=total,
        total=total,
        total_excluding_tax=total,
    )
    out["amount_due"] = record.get("amount_due", due)
    out["amount_remaining"] = max(out["amount_due"] - out["amount_paid"], 0)
    return out


def line_item(invoice: Record, line: Record) -> Json:
    """Return an invoice's line."""
    out = {**DEFAULTS["lines"], **line, "invoice": invoice["id"], "currency": invoice["currency"]}
    details = nothing("proration_details subscription") | {
        "invoice_item": out.pop("item"),
        "proration": False,
    }
    parent = {"type": "invoice_item_details", "invoice_item_details": details}
    out["parent"] = parent | {"subscription_item_details": None}
    out["subtotal"] = line["amount"]
    del out["created"]
    return _priced(out)


def _item(_unit: Unit, record: Record) -> Json:
    out = _laid_over("invoiceitems", record)
    out.pop("item", None)
    out["date"] = out.pop("created")
    out["net_amount"] = out["amount"]
    return _priced(out)


def _priced(out: Json) -> Json:
    unit_amount, price, product = (
        out.pop("unit", None),
        out.pop("price", None),
        out.pop("product", None),
    )
    out["pricing"] = None
    if unit_amount is not None:
        out["pricing"] = {"type": "price_details", "unit_amount_decimal": unit_amount}
        if price is not None:
            out["pricing"]["price_details"] = {"price": price, "product": product}
    out["quantity"] = int(Decimal(out["quantity_decimal"]))
    return out


def _payment(_unit: Unit, record: Record) -> Json:
    out = _laid_over("invoice_payments", record)
    del out["customer"]
    return out


def _endpoint(_unit: Unit, record: Record) -> Json:
    out = _laid_over("webhook_endpoints", record)
    del out["secret"]
    return out


def _event(unit: Unit, record: Record) -> Json:
    return event(unit, record, API_VERSION)


def event(unit: Unit, record: Record, version: str) -> Json:
    """Return an event as an endpoint of *version* gets it."""
    after = shape(unit, record["_kind"], record["_after"])
    data: Json = {"object": after}
    if "_before" in record:
        before = shape(unit, record["_kind"], record["_before"])
        data["previous_attributes"] = {
            key: before.get(key)
            for key in after.keys() | before.keys()
            if before.get(key) != after.get(key)
        }
    if version < "2025-03-31":
        data = {part: _before_basil(shown) for part, shown in data.items()}
    return {
        "id": record["id"],
        "object": "event",
        "account": ACCOUNT_ID,
        "api_version": version,
        "created": record["created"],
        "data": data,
        "livemode": False,
        "pending_webhooks": unit.account.state.waiting.get(record["id"], 0),
        "request": {"id": record.get("_request"), "idempotency_key": record.get("_key")},
        "type": record["type"],
    }


def _before_basil(shown: Json) -> Json:
    """Show an invoice as versions before 2025-03-31.basil did, in the fields that moved."""
    if shown.get("object") != "invoice":
        return shown
    out = {key: value for key, value in shown.items() if key not in ("parent", "total_taxes")}
    out |= nothing("charge payment_intent quote subscription tax")
    out["paid"] = shown["status"] == "paid"
    out["lines"] = shown["lines"] | {
        "data": [_line_before_basil(line) for line in shown["lines"]["data"]]
    }
    return out


def _line_before_basil(line: Json) -> Json:
    out = {key: value for key, value in line.items() if key not in ("parent", "pricing")}
    details = (line["pricing"] or {}).get("price_details") or {}
    out["invoice_item"] = line["parent"]["invoice_item_details"]["invoice_item"]
    out["price"] = {"id": details.get("price"), "object": "price"} if details else None
    return out | {"proration": False, "type": "invoiceitem"}


SHAPES: Final[Mapping[str, Callable[[Unit, Record], Json]]] = {
    "customers": _customer,
    "prices": _price,
    "invoices": _invoice,
    "invoiceitems": _item,
    "events": _event,
    "invoice_payments": _payment,
    "webhook_endpoints": _endpoint,
}
