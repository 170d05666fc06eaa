"""Serialization: a stored record, filled into a blank object of its kind, as Stripe shows it."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from sandbox.account import Account, Record
from sandbox.sdk import API_VERSION, KINDS, Json, filled
from sandbox.totals import automatic_tax_status, compute

INLINE_LINES: Final = 10


def serialize(account: Account, kind: str, record: Record) -> Json:
    """Return *record* as Stripe shows it."""
    if kind == "events":
        return serialize_event(account, record, API_VERSION)
    if record.get("deleted"):
        return {"id": record["id"], "object": KINDS[kind].name, "deleted": True}
    shown = filled(KINDS[kind].type, record, KINDS[kind].blank)
    if kind == "invoices":
        _complete_invoice(account, record, shown)
    elif kind in ("lines", "invoiceitems"):
        _complete_item(record, shown)
    elif kind == "customers":
        shown["invoice_prefix"] = invoice_prefix(record)
    elif kind == "prices":
        amount = record["unit_amount_decimal"] and Decimal(record["unit_amount_decimal"])
        shown["unit_amount"] = None if amount is None or amount % 1 else int(amount)
        for name in ("tiers", "currency_options"):  # shown only when they are expanded
            shown.pop(name, None)
    return shown


def list_object(url: str, data: list[Any], *, has_more: bool = False) -> Json:
    """Return a list object."""
    return {"object": "list", "data": data, "has_more": has_more, "url": url}


def invoice_prefix(customer: Record) -> str:
    """Return the prefix of the numbers of this customer's invoices."""
    return str(customer.get("invoice_prefix") or customer["id"][-8:].upper().replace("_", "X"))


def serialize_event(account: Account, record: Record, version: str) -> Json:
    """Return an event as an endpoint of API *version* receives it."""
    after = serialize(account, record["kind"], record["after"])
    data: Json = {"object": after}
    if "before" in record:
        before = serialize(account, record["kind"], record["before"])
        changed = [key for key in {**after, **before} if before.get(key) != after.get(key)]
        data["previous_attributes"] = {key: before.get(key) for key in changed}
    if version < "2025-03-31" and record["kind"] == "invoices":
        data = {part: _before_basil(shown) for part, shown in data.items()}
    shown = KINDS["events"].blank | {key: record[key] for key in ("id", "created", "type")}
    request = {"id": record.get("request"), "idempotency_key": record.get("key")}
    shown |= {"api_version": version, "data": data, "request": request}
    return shown | {"pending_webhooks": account.pending_endpoints(record["id"])}


def _before_basil(invoice: Json) -> Json:
    """Convert an invoice to API versions before 2025-03-31.basil, in the fields that moved."""
    removed = dict.fromkeys(("charge", "payment_intent", "quote", "subscription", "tax"))
    old, lines = {**invoice, **removed, "paid": invoice.get("status") == "paid"}, []
    for line in invoice.get("lines", {}).get("data", ()):
        price = (line["pricing"] or {}).get("price_details", {}).get("price")
        item = line["parent"]["invoice_item_details"]["invoice_item"]
        moved = {"invoice_item": item, "price": price and {"id": price, "object": "price"}}
        lines.append(line | moved | {"type": "invoiceitem"})
    if "lines" in invoice:
        old["lines"] = invoice["lines"] | {"data": lines}
    for shown in (old, *lines):
        for key in ("parent", "pricing", "total_taxes"):
            shown.pop(key, None)
    return old


def with_totals(account: Account, invoice: Record, lines: Sequence[Json]) -> list[Json]:
    """Return serialized *lines* of an invoice with their discounts and taxes."""
    amounts = {
        item["line"]: {"discount_amounts": _discount_amounts(line.discounts), "taxes": line.taxes}
        for item, line in zip(invoice["held"], compute(account, invoice).lines, strict=True)
    }
    return [line | amounts[line["id"]] for line in lines]


def _complete_invoice(account: Account, record: Record, shown: Json) -> None:
    customer = record.get("billed") or account.rows["customers"].get(record["customer"], {})
    items, totals = record["held"], compute(account, record)
    amount = totals.total
    balance = customer.get("balance", 0) if customer.get("currency") == record["currency"] else 0
    starting = record.get("starting_balance", balance)
    due = record.get("amount_due", max(amount + starting, 0) if amount > 0 else 0)
    shown |= {"starting_balance": starting, "amount_due": due}
    shown |= {"subtotal": totals.subtotal, "total": amount}
    shown |= dict.fromkeys(("subtotal_excluding_tax", "total_excluding_tax"), totals.untaxed)
    shown["total_discount_amounts"] = _discount_amounts(totals.discounts)
    shown["total_taxes"] = totals.taxes
    shown["automatic_tax"] = shown["automatic_tax"] | automatic_tax_status(account, record)
    shown["discounts"] = list(totals.discounts) or [d["id"] for d in record.get("discounts") or ()]
    rates = record.get("default_tax_rates") or ()
    shown["default_tax_rates"] = [
        serialize(account, "tax_rates", account.get("tax_rates", r)) for r in rates
    ]
    shown |= {f"customer_{n}": customer.get(n) for n in ("address", "email", "name", "phone")}
    shown["period_start"] = shown["period_end"] = record["created"]
    shown["amount_remaining"] = max(due - shown["amount_paid"], 0)
    first = [serialize(account, "lines", item) for item in items[:INLINE_LINES]]
    first = with_totals(account, record, first)
    url, has_more = f"/v1/invoices/{record['id']}/lines", len(items) > INLINE_LINES
    shown["lines"] = list_object(url, first, has_more=has_more)


def _discount_amounts(amounts: dict[str, int]) -> list[Json]:
    return [{"discount": name, "amount": amount} for name, amount in amounts.items()]


def _complete_item(record: Record, shown: Json) -> None:
    """Complete an invoice item, or the same record as an invoice line."""
    shown["quantity"] = int(Decimal(record["quantity_decimal"]))
    # Stripe documents false for negative lines and true for all others.
    shown["discountable"] = record.get("discountable", record["amount"] >= 0)
    if unit := record["unit_amount_decimal"]:
        details = record["price_details"]
        shown["pricing"] = {"type": "price_details", "unit_amount_decimal": unit}
        shown["pricing"] |= {"price_details": details} if details else {}
    if shown["object"] == "invoiceitem":
        shown["date"], shown["net_amount"] = record["created"], record["amount"]
        return
    details = {"invoice_item": record["id"], "proration": False, "proration_details": None}
    parent = {"type": "invoice_item_details", "subscription_item_details": None}
    shown["parent"] = parent | {"invoice_item_details": details | {"subscription": None}}
    shown["id"], shown["subtotal"] = record["line"], record["amount"]
