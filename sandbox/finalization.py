"""How a draft becomes a bill: numbered, frozen, set off against the balance, collected.

By a call, or by itself when its time has come.
"""

from typing import Final

from sandbox import payments
from sandbox.account import Account, Unit
from sandbox.balance import move_balance
from sandbox.defaults import Json
from sandbox.errors import StripeError
from sandbox.forms import Params
from sandbox.lines import editable
from sandbox.shapes import invoice_prefix, shape
from sandbox.state import Record

HOUR: Final = 3600
# Below this Stripe charges nothing and carries the amount to the customer's balance.
MINIMUM_CHARGE: Final = {"usd": 50, "eur": 50, "gbp": 30, "jpy": 50, "chf": 50, "cad": 50}


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
