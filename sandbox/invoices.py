"""An invoice's life: draft → open → paid, uncollectible or void."""

from typing import Any, Final

from sandbox import payments
from sandbox.account import Unit
from sandbox.balance import move_balance
from sandbox.defaults import Json
from sandbox.errors import refuse
from sandbox.finalization import HOUR
from sandbox.forms import Params, merged, required
from sandbox.lines import MAX_LINES, claim_pending, editable, new_line
from sandbox.lists import equals, page, within
from sandbox.shapes import shape
from sandbox.state import Record

AFTER_FINALIZING: Final = {"metadata", "auto_advance", "default_payment_method", "footer"}


def create(unit: Unit, params: Params) -> Json:
    """Create an empty draft, or one with the customer's pending items if asked to include them."""
    customer = unit.get("customers", required(params, "customer"), "customer")
    currency = (params.get("currency") or customer.get("currency") or "usd").lower()
    if customer.get("currency") is None:
        unit.change("customers", customer, currency=currency)
    draft: Record = {"customer": customer["id"], "currency": currency, "status": "draft"}
    draft |= {"_lines": (), "created": unit.now}
    draft |= _changes(draft, params)
    heard = unit.hearers("invoice.created")
    draft |= {} if heard else {"webhooks_delivered_at": unit.now}
    draft |= _schedule(unit, draft, params)
    if params.get("pending_invoice_items_behavior") == "include":
        draft["_lines"] = tuple(claim_pending(unit, draft))
    record = unit.new("invoices", draft)
    unit.emit("invoice.created", "invoices", record)
    return shape(unit, "invoices", record)


def update(unit: Unit, params: Params, invoice: str) -> Json:
    """Change an invoice; once finalized only a few of its fields."""
    old = unit.get("invoices", invoice)
    if params.keys() - AFTER_FINALIZING:
        editable(unit, invoice)
    changes = _changes(old, params)
    if old["status"] == "draft":
        changes |= _schedule(unit, {**old, **changes}, params)
    return shape(unit, "invoices", unit.change("invoices", old, **changes))


def delete(unit: Unit, _params: Params, invoice: str) -> Json:
    """Delete a draft, and with it the items it holds (a guess)."""
    old = editable(unit, invoice)
    unit.drop("invoices", invoice)
    unit.emit("invoice.deleted", "invoices", old)
    return {"id": invoice, "object": "invoice", "deleted": True}


def void(unit: Unit, _params: Params, invoice: str) -> Json:
    """Void an open or uncollectible invoice; applied balance returns to the customer."""
    old = _in_state(unit, invoice, payments.PAYABLE)
    if applied := old["ending_balance"] - old["starting_balance"]:
        move_balance(
            unit,
            old["customer"],
            -applied,
            old["currency"],
            "unapplied_from_invoice",
            invoice=invoice,
        )
    return _moved(unit, old, "void", "voided_at", "invoice.voided")


def mark_uncollectible(unit: Unit, _params: Params, invoice: str) -> Json:
    """Give up on an open invoice."""
    old = _in_state(unit, invoice, ("open",))
    event = "invoice.marked_uncollectible"
    details = {"uncollectible": {"reason": "user_forgiven"}}
    reasoned = {**old, "status_details": details}
    unit.put("invoices", reasoned)
    return _moved(unit, reasoned, "uncollectible", "marked_uncollectible_at", event)


def send(unit: Unit, _params: Params, invoice: str) -> Json:
    """Send an open invoice: an event, no e-mail."""
    record = _in_state(unit, invoice, ("open",))
    unit.emit("invoice.sent", "invoices", record)
    return shape(unit, "invoices", record)


def list_invoices(unit: Unit, params: Params) -> Json:
    """List invoices, newest first."""
    same = equals(params, "status")
    method, due = params.get("collection_method"), params.get("due_date")
    return page(
        unit,
        "invoices",
        params,
        "/v1/invoices",
        lambda r: (
            same(r)
            and method in (None, r.get("collection_method", "charge_automatically"))
            and within(r.get("due_date"), due)
        ),
    )


def create_preview(unit: Unit, params: Params) -> Json:
    """Show what an invoice of these items and the customer's pending ones would be; keep nothing."""
    items = params.get("invoice_items") or []
    if len(items) > MAX_LINES:
        raise refuse(f"At most {MAX_LINES} items.", param="invoice_items")
    customer = unit.get("customers", required(params, "customer"), "customer")
    currency = params.get("currency") or customer.get("currency") or "usd"
    preview: Record = {
        "id": unit.account.new_id("upcoming_in_1"),
        "created": unit.now,
        "customer": customer["id"],
        "currency": currency,
        "status": "draft",
    }
    pending = claim_pending(unit, preview)
    lines = [new_line(unit, _previewed(each), currency, "invoice_items") for each in items]
    shown = shape(unit, "invoices", preview | {"_lines": (*pending, *lines)})
    unit.discard()
    return shown


def _changes(old: Record, params: Params) -> Params:
    changes = {k: None if v == "" else v for k, v in params.items() if v != old.get(k)}
    for spent in ("pending_invoice_items_behavior", "days_until_due", "automatically_finalizes_at"):
        changes.pop(spent, None)
    changes = {k: v for k, v in changes.items() if k not in ("customer", "currency")}
    if "metadata" in params:
        changes["metadata"] = merged(old.get("metadata"), params["metadata"])
    method = changes.get("collection_method", old.get("collection_method"))
    days = params.get("days_until_due")
    if days is not None:
        changes["_days"] = days
    dated = days is not None or old.get("_days") is not None or {**old, **changes}.get("due_date")
    if (method == "send_invoice") != bool(dated):
        raise refuse(
            "due_date or days_until_due go with collection_method=send_invoice, and only there."
        )
    return changes


def _schedule(unit: Unit, draft: Record, params: Params) -> Params:
    explicit = params.get("automatically_finalizes_at")
    if explicit is not None and not draft.get("auto_advance"):
        raise refuse(
            "automatically_finalizes_at needs auto_advance.", param="automatically_finalizes_at"
        )
    if explicit is not None:
        return {"automatically_finalizes_at": explicit, "_unheard": False}
    if "auto_advance" not in params:
        return {}
    if not params["auto_advance"]:
        return {"automatically_finalizes_at": None, "_unheard": False}
    unheard = draft.get("webhooks_delivered_at") is None
    return {"automatically_finalizes_at": unit.now + HOUR, "_unheard": unheard}


def _in_state(unit: Unit, invoice: str, states: tuple[str, ...]) -> Record:
    record = unit.get("invoices", invoice)
    if record["status"] not in states:
        wanted = " or ".join(states)
        raise refuse(
            f"This invoice is {record['status']}; it must be {wanted}.", code="invoice_not_open"
        )
    return record


def _moved(unit: Unit, old: Record, status: str, mark: str, event: str) -> Json:
    transitions = {**old["status_transitions"], mark: unit.now}
    changes: dict[str, Any] = {"status": status, "status_transitions": transitions}
    new = unit.change("invoices", old, **changes, auto_advance=False)
    unit.emit(event, "invoices", new)
    return shape(unit, "invoices", new)


def _previewed(item: Params) -> Params:
    line = {
        key: value for key, value in item.items() if key not in ("price", "unit_amount", "currency")
    }
    if item.get("price"):
        line["pricing"] = {"price": item["price"]}
    if item.get("unit_amount") is not None:
        line["unit_amount_decimal"] = str(item["unit_amount"])
    return line
