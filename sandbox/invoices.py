"""An invoice's youth: created, changed, previewed, and finalized by a call or by the clock."""

from typing import Final

from sandbox.account import HOUR, Account, Record, Unit
from sandbox.customers import move_balance, required
from sandbox.errors import StripeError, refuse
from sandbox.forms import Params
from sandbox.lines import claim_pending, editable, new_line
from sandbox.payments import collect, taken
from sandbox.resources import changes
from sandbox.sdk import Json
from sandbox.shapes import invoice_prefix, shape, total

EDITABLE_LATER: Final = {"metadata", "auto_advance", "default_payment_method", "footer"}
# Below this Stripe charges nothing and carries the amount to the customer's balance.
MINIMUM_CHARGE: Final = 50


def create(unit: Unit, params: Params) -> Record:
    """Create an empty draft, or one with the customer's pending items if asked to include them."""
    owner = unit.get("customers", required(params, "customer"), "customer")
    currency = (params.pop("currency", None) or owner.get("currency") or "usd").lower()
    if owner.get("currency") is None:
        unit.change("customers", owner, currency=currency)
    draft: Record = {"customer": owner["id"], "currency": currency, "status": "draft", "held": []}
    if not unit.hearers("invoice.created"):
        draft["webhooks_delivered_at"] = unit.now
    if params.pop("pending_invoice_items_behavior", None) == "include":
        draft["held"] = claim_pending(unit, draft)
    return unit.create("invoices", draft | _changes(unit, draft, params))


def update(unit: Unit, params: Params, invoice: str) -> Record:
    """Change an invoice; once finalized only a few of its fields."""
    if params.keys() - EDITABLE_LATER:
        editable(unit, invoice)
    old = unit.get("invoices", invoice)
    return unit.change("invoices", old, **_changes(unit, old, params))


def delete(unit: Unit, _: Params, invoice: str) -> Record:
    """Delete a draft, and with it the items it holds (a guess)."""
    unit.remove("invoices", editable(unit, invoice))
    return {"id": invoice, "deleted": True}


def finalize(unit: Unit, params: Params, invoice: str) -> Record:
    """Number and freeze a draft; nothing due makes it paid at once, auto_advance collects it."""
    draft = editable(unit, invoice)
    new = _numbered(unit, draft) | _set_off(unit, draft)
    advance = params.get("auto_advance", draft.get("auto_advance", False))
    opened = taken(unit, draft, "finalize", **new, auto_advance=advance)
    if opened["amount_due"] == 0:
        return taken(unit, opened, "pay", attempted=True)
    return collect(unit, opened) if advance else opened


def create_preview(unit: Unit, params: Params) -> Json:
    """Show what an invoice of these items and the customer's pending ones would be; keep nothing."""
    owner = unit.get("customers", required(params, "customer"), "customer")
    currency = params.get("currency") or owner.get("currency") or "usd"
    preview: Record = {"id": unit.account.new_id("upcoming_in_1"), "created": unit.now}
    preview |= {"customer": owner["id"], "currency": currency, "status": "draft"}
    preview["held"] = claim_pending(unit, preview)
    for item in params.get("invoice_items") or ():
        if price := item.pop("price", None):
            item["pricing"] = {"price": price}
        if (amount := item.pop("unit_amount", None)) is not None:
            item["unit_amount_decimal"] = str(amount)
        preview["held"].append(new_line(unit, preview, item, "invoice_items"))
    shown = shape(unit, "invoices", preview)
    unit.discard()
    return shown


def run_timers(account: Account) -> None:
    """Finalize every draft whose time has come; one that cannot be says so in an event."""
    for record in account.due():
        unit = Unit(account)
        try:
            finalize(unit, {}, record["id"])
        except StripeError:
            unit.discard()
            unit.tell("invoice.finalization_failed", "invoices", record)
        unit.commit()


def acknowledged(unit: Unit, invoice: str) -> None:
    """Note that every endpoint has acknowledged ``invoice.created``: the last hour begins."""
    record = unit.find("invoices", invoice)
    if record is not None and not record.get("webhooks_delivered_at"):
        now: Params = {"webhooks_delivered_at": unit.now, "unheard": False}
        if record.get("unheard"):
            now["automatically_finalizes_at"] = unit.now + HOUR
        unit.put("invoices", {**record, **now})


def _changes(unit: Unit, old: Record, params: Params) -> Record:
    at, days = params.pop("automatically_finalizes_at", None), params.get("days_until_due")
    new = changes(old, params)
    whole = {**old, **new}
    dated = whole.get("due_date") or whole.get("days_until_due") is not None
    if (whole.get("collection_method") == "send_invoice") != bool(dated):
        message = "A due date goes with collection_method=send_invoice, and only there."
        raise refuse(message, param="due_date" if days is None else "days_until_due")
    if at is not None:
        if not whole.get("auto_advance"):
            message = "automatically_finalizes_at needs auto_advance."
            raise refuse(message, param="automatically_finalizes_at")
        return new | {"automatically_finalizes_at": at, "unheard": False}
    if "auto_advance" in new and whole["status"] == "draft":
        advance = bool(new["auto_advance"])
        new["automatically_finalizes_at"] = unit.now + HOUR if advance else None
        new["unheard"] = advance and not whole.get("webhooks_delivered_at")
    return new


def _numbered(unit: Unit, draft: Record) -> Record:
    customer = unit.find("customers", draft["customer"]) or {"id": draft["customer"]}
    sequence, days = customer.get("next_invoice_sequence", 1), draft.get("days_until_due")
    if not customer.get("deleted"):
        unit.put("customers", {**customer, "next_invoice_sequence": sequence + 1})
    page, later = f"{unit.account.base_url}/i/{draft['id']}", unit.now + (days or 0) * 24 * HOUR
    return {
        "number": draft.get("number") or f"{invoice_prefix(customer)}-{sequence:04}",
        "due_date": draft.get("due_date") or (None if days is None else later),
        "effective_at": draft.get("effective_at") or unit.now,
        "automatically_finalizes_at": None,
        "hosted_invoice_url": page,
        "invoice_pdf": page,
        "billed": {k: customer[k] for k in ("name", "email", "address", "phone") if k in customer},
    }


def _set_off(unit: Unit, draft: Record) -> Record:
    customer, amount = unit.find("customers", draft["customer"]) or {}, total(draft)
    mine = customer.get("currency") == draft["currency"] and not customer.get("deleted")
    starting = customer.get("balance", 0) if mine else 0
    whole = amount + starting
    due, ending = (max(whole, 0), min(whole, 0)) if amount > 0 else (0, whole)
    cause = "applied_to_invoice"
    if 0 < due < MINIMUM_CHARGE:
        due, ending, cause = 0, ending + due, "invoice_too_small"
    if mine and ending != starting:
        more = {"invoice": draft["id"]}
        move_balance(unit, customer["id"], ending - starting, draft["currency"], cause, **more)
    return {"starting_balance": starting, "ending_balance": ending, "amount_due": due}
