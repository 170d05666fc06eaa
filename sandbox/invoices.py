"""An invoice's life: draft → open → paid, uncollectible or void, and the timers that push it."""

from typing import Any, Final

from sandbox import payments
from sandbox.account import Account, Unit
from sandbox.balance import move_balance
from sandbox.errors import StripeError, refuse
from sandbox.forms import Params, merged, required
from sandbox.lines import MAX_LINES, claim_pending, editable, new_line
from sandbox.lists import equals, page, within
from sandbox.shapes import Json, invoice_prefix, shape
from sandbox.state import Record

HOUR: Final = 3600
# Below this Stripe charges nothing and carries the amount to the customer's balance.
MINIMUM_CHARGE: Final = {"usd": 50, "eur": 50, "gbp": 30, "jpy": 50, "chf": 50, "cad": 50}
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


def finalize(unit: Unit, params: Params, invoice: str) -> Json:
    """Number and freeze a draft; nothing due makes it paid at once, auto_advance collects it."""
    draft = editable(unit, invoice)
    numbered = _numbered(unit, draft)
    if params.get("auto_advance") is not None:
        numbered["auto_advance"] = params["auto_advance"]
    opened = unit.change("invoices", draft, **numbered, **_applied_balance(unit, draft))
    unit.emit("invoice.finalized", "invoices", opened)
    if opened["amount_due"] == 0:
        payments.settle(unit, opened, paid=0, attempted=True)
    elif opened.get("auto_advance"):
        _collect(unit, opened)
    return shape(unit, "invoices", unit.get("invoices", invoice))


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


def run_timers(account: Account) -> None:
    """Finalize every draft whose time has come; one that cannot be says so in an event."""
    for record in list(account.state.due(account.clock.seconds())):
        unit = Unit(account)
        try:
            finalize(unit, {}, record["id"])
        except StripeError:
            unit.discard()
            unit.emit("invoice.finalization_failed", "invoices", record)
        unit.commit()


def webhooks_delivered(unit: Unit, invoice: str) -> None:
    """Note that every endpoint has acknowledged ``invoice.created``: the last hour begins."""
    record = unit.find("invoices", invoice)
    if record is None or record.get("webhooks_delivered_at"):
        return
    changes: Params = {"webhooks_delivered_at": unit.now, "_unheard": False}
    if record.get("_unheard"):
        changes["automatically_finalizes_at"] = unit.now + HOUR
    unit.put("invoices", {**record, **changes})


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


def _numbered(unit: Unit, draft: Record) -> Params:
    customer = unit.find("customers", draft["customer"]) or {"id": draft["customer"]}
    sequence = customer.get("next_invoice_sequence", 1)
    if not customer.get("deleted"):
        unit.put("customers", {**customer, "next_invoice_sequence": sequence + 1})
    prefix = customer.get("invoice_prefix") or invoice_prefix(customer["id"])
    base, days = unit.account.base_url, draft.get("_days")
    due = draft.get("due_date") or (unit.now + days * 86400 if days is not None else None)
    return {
        "status": "open",
        "number": draft.get("number") or f"{prefix}-{sequence:04}",
        "due_date": due,
        "effective_at": draft.get("effective_at") or unit.now,
        "automatically_finalizes_at": None,
        "hosted_invoice_url": f"{base}/i/{draft['id']}",
        "invoice_pdf": f"{base}/i/{draft['id']}/pdf",
        "status_transitions": {"finalized_at": unit.now},
        "_customer": {
            key: customer.get(key)
            for key in ("name", "email", "address", "phone")
            if customer.get(key)
        },
    }


def _applied_balance(unit: Unit, draft: Record) -> Params:
    customer = unit.find("customers", draft["customer"]) or {}
    total = sum(line["amount"] for line in draft["_lines"])
    mine = customer.get("currency") == draft["currency"] and not customer.get("deleted")
    starting = customer.get("balance", 0) if mine else 0
    if total <= 0:
        due, ending = 0, starting + total
    else:
        due = max(total + starting, 0)
        ending = min(total + starting, 0)
    kind = "applied_to_invoice"
    if 0 < due < MINIMUM_CHARGE.get(draft["currency"], 50):
        due, ending, kind = 0, ending + due, "invoice_too_small"
    if mine and ending != starting:
        step = ending - starting
        cause = {"invoice": draft["id"]}
        move_balance(unit, draft["customer"], step, draft["currency"], kind, **cause)
    return {"starting_balance": starting, "ending_balance": ending, "amount_due": due}


def _collect(unit: Unit, invoice: Record) -> None:
    if invoice.get("collection_method") == "send_invoice":
        unit.emit("invoice.sent", "invoices", invoice)
        return
    method = unit.find("payment_methods", payments.default_method(unit, invoice))
    if method is None:
        failed = unit.change("invoices", invoice, attempted=True, attempt_count=1)
        unit.emit("invoice.payment_failed", "invoices", failed)
        return
    try:
        payments.charge(unit, invoice, method)
    except StripeError:
        return  # the decline is recorded on the invoice; finalizing it has succeeded


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
