"""An invoice's life: drafted, finalized by a call or by the clock, and the steps it takes as a bill."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from sandbox.account import DAY, HOUR, Account, Record
from sandbox.customers import card_for, move_balance, required
from sandbox.errors import StripeError, refuse
from sandbox.lines import change_lines, claim_pending, editable
from sandbox.params import Params
from sandbox.sdk import Json
from sandbox.serializers import SUMS, invoice_prefix, listed, shape, total

EDITABLE_LATER: Final = {"metadata", "auto_advance", "default_payment_method", "footer"}
# How long a draft that nobody has heard of waits with its finalization.
PATIENCE: Final = 72 * HOUR
# Below this Stripe charges nothing and carries the amount to the customer's balance.
MINIMUM_CHARGE: Final = 50
OPEN: Final = ("open",)
OWING: Final = ("open", "uncollectible")
# Step → from which states it is taken, to which one, and what tells of it.
STEPS: Final[Mapping[str, tuple[tuple[str, ...], str, str]]] = {
    "finalize": (("draft",), "open", "finalized"),
    "send": (OPEN, "", "sent"),
    "pay": (OWING, "paid", "paid"),
    "void": (OWING, "void", "voided"),
    "mark_uncollectible": (OPEN, "uncollectible", "marked_uncollectible"),
}


def run_timers(account: Account) -> None:
    """Finalize every draft whose time has come; one that cannot be says so, and waits for somebody."""
    now, invoices = account.now, account.rows["invoices"].values()
    for draft in [i for i in invoices if 0 < (i.get("automatically_finalizes_at") or 0) <= now]:
        with account.unit():
            try:
                _finalize(account, {}, draft["id"])
            except StripeError:
                account.undo()
                stop = {"auto_advance": False, "automatically_finalizes_at": None}
                stopped = account.change("invoices", draft, stop)
                account.tell("invoice.finalization_failed", "invoices", stopped)


def acknowledged(account: Account, invoice: str) -> None:
    """Note that every endpoint has acknowledged ``invoice.created``: the last hour begins."""
    record = account.rows["invoices"].get(invoice)
    if record is not None and not record.get("webhooks_delivered_at"):
        heard = {"webhooks_delivered_at": account.now}
        if record.get("automatically_finalizes_at") == record["created"] + PATIENCE:
            heard["automatically_finalizes_at"] = account.now + HOUR
        account.put("invoices", record | heard)


def _create(account: Account, params: Params) -> Record:
    """Create an empty draft, or one with the customer's pending items if asked to include them."""
    owner = required(account, params, "customer")
    currency = (params.pop("currency", None) or owner.get("currency") or "usd").lower()
    account.change("customers", owner, {"currency": owner.get("currency") or currency})
    draft = {"id": params.get("id") or account.new_id("in_1"), "customer": owner["id"]}
    draft |= {"currency": currency, "status": "draft", "held": [], "created": account.now}
    if not account.hearers("invoice.created"):
        draft["webhooks_delivered_at"] = account.now
    if params.pop("pending_invoice_items_behavior", None) == "include":
        draft["held"] = claim_pending(account, draft)
    return account.create("invoices", draft | _edits(account, draft, params))


def _update(account: Account, params: Params, invoice: str) -> Record:
    """Change an invoice; once finalized only a few of its fields."""
    if params.keys() - EDITABLE_LATER:
        editable(account, invoice)
    old = account.get("invoices", invoice)
    return account.change("invoices", old, _edits(account, old, params))


def _edits(account: Account, old: Record, params: Params) -> Record:
    """Return what is sent, and when the draft then finalizes by itself."""
    at, whole = params.pop("automatically_finalizes_at", None), {**old, **params}
    dated = whole.get("due_date") or whole.get("days_until_due") is not None
    if (whole.get("collection_method") == "send_invoice") != bool(dated):
        message = "A due date goes with collection_method=send_invoice, and only there."
        raise refuse(message, param="days_until_due" if "days_until_due" in params else "due_date")
    advance = bool(whole.get("auto_advance"))
    if at is not None and not advance:
        message = "automatically_finalizes_at needs auto_advance."
        raise refuse(message, param="automatically_finalizes_at")
    if at is None and whole["status"] == "draft" and advance != old.get("auto_advance", False):
        heard = whole.get("webhooks_delivered_at")
        at = account.now + HOUR if heard else whole["created"] + PATIENCE
        return params | {"automatically_finalizes_at": at if advance else None}
    return params if at is None else params | {"automatically_finalizes_at": at}


def _delete(account: Account, _: Params, invoice: str) -> Record:
    """Delete a draft, and with it the items it holds (a guess)."""
    draft = editable(account, invoice)
    for item in draft["held"]:
        account.drop("invoiceitems", item)
    return account.remove("invoices", draft)


def _create_preview(account: Account, params: Params) -> Json:
    """Show what an invoice of these items and the customer's pending ones would be; keep nothing."""
    draft: Params = {name: params[name] for name in ("customer", "currency") if name in params}
    draft |= {"id": account.new_id("upcoming_in_1"), "pending_invoice_items_behavior": "include"}
    preview, added = _create(account, draft)["id"], {"lines": params.get("invoice_items") or []}
    made = change_lines("add", account, added, preview, "invoice_items")
    shown = shape(account, "invoices", made | {"webhooks_delivered_at": None})
    account.undo()
    return shown


def _finalize(account: Account, params: Params, invoice: str) -> Record:
    """Number and freeze a draft; nothing due makes it paid at once, auto_advance collects it."""
    draft = editable(account, invoice)
    advance = params.get("auto_advance", draft.get("auto_advance", False))
    frozen = _numbered(account, draft) | _set_off(account, draft) | {"auto_advance": advance}
    bill = _taken(account, draft, "finalize", frozen)
    if bill["amount_due"] == 0:
        return _taken(account, bill, "pay", {"attempted": True})
    if not advance:
        return bill
    if bill.get("collection_method") == "send_invoice":
        return _taken(account, bill, "send", {})
    return _charged(account, bill, card_for(account, bill))


def _numbered(account: Account, draft: Record) -> Record:
    customer = account.rows["customers"].get(draft["customer"], {"id": draft["customer"]})
    sequence, days = customer.get("next_invoice_sequence", 1), draft.get("days_until_due")
    if not customer.get("deleted"):
        account.put("customers", {**customer, "next_invoice_sequence": sequence + 1})
    page, later = f"{account.base_url}/i/{draft['id']}", account.now + (days or 0) * DAY
    return {
        "number": draft.get("number") or f"{invoice_prefix(customer)}-{sequence:04}",
        "due_date": draft.get("due_date") or (None if days is None else later),
        "effective_at": draft.get("effective_at") or account.now,
        "automatically_finalizes_at": None,
        "hosted_invoice_url": page,
        "invoice_pdf": page,
        "billed": {k: customer[k] for k in ("name", "email", "address", "phone") if k in customer},
    }


def _set_off(account: Account, draft: Record) -> Record:
    """Set the customer's balance off against the bill, and carry what is too small to charge."""
    customer, amount = account.rows["customers"].get(draft["customer"], {}), total(draft)
    mine = customer.get("currency") == draft["currency"] and not customer.get("deleted")
    starting = customer.get("balance", 0) if mine else 0
    whole = amount + starting
    due, ending = (max(whole, 0), min(whole, 0)) if amount > 0 else (0, whole)
    cause = "applied_to_invoice"
    if 0 < due < MINIMUM_CHARGE:
        due, ending, cause = 0, ending + due, "invoice_too_small"
    if mine and ending != starting:
        move_balance(account, draft, ending - starting, cause, invoice=draft["id"])
    return {"starting_balance": starting, "ending_balance": ending, "amount_due": due}


def _step(name: str, account: Account, _: Params, invoice: str) -> Record:
    """Void an invoice, which gives back what it took of the balance; give it up; or send it."""
    old, more = _ready(account, invoice, name), {}
    if name == "void" and (applied := old["ending_balance"] - old["starting_balance"]):
        move_balance(account, old, -applied, "unapplied_from_invoice", invoice=invoice)
    if name == "mark_uncollectible":
        more = {"status_details": {"uncollectible": {"reason": "user_forgiven"}}}
    return _taken(account, old, name, more)


def _pay(account: Account, params: Params, invoice: str) -> Record:
    """Pay an open or uncollectible invoice; a declined card is a 402 that is recorded."""
    old = _ready(account, invoice, "pay")
    if params.get("paid_out_of_band"):
        due = _remaining(account, old)
        return _taken(account, old, "pay", {"amount_paid": due, "amount_paid_off_stripe": due})
    card = card_for(account, old, params.get("payment_method"))
    if card is None:
        raise refuse("There is no default payment method set on this customer or invoice.")
    if (paid := _charged(account, old, card))["status"] != "paid":
        reason = {"code": "card_declined", "decline_code": "generic_decline"}
        raise StripeError(402, "Your card was declined.", keep=True, type="card_error", **reason)
    return paid


def _ready(account: Account, invoice: str, name: str) -> Record:
    """Return an invoice from whose state the step may be taken."""
    record, sources = account.get("invoices", invoice), STEPS[name][0]
    if record["status"] not in sources:
        code = "invoice_already_paid" if record["status"] == "paid" else "invoice_not_open"
        message = f"This invoice is {record['status']}; it must be {' or '.join(sources)}."
        raise refuse(message, code=code)
    return record


def _taken(account: Account, old: Record, name: str, more: Record) -> Record:
    """Move an invoice a step along, and tell both the change and the step."""
    _, target, event = STEPS[name]
    if target:
        moved = {"status": target, "status_transitions": {f"{event}_at": account.now}}
        old = account.change("invoices", old, moved | {"auto_advance": False} | more)
    account.tell(f"invoice.{event}", "invoices", old)
    return old


def _charged(account: Account, invoice: Record, card: Record | None) -> Record:
    tried = {"attempted": True, "attempt_count": invoice.get("attempt_count", 0) + 1}
    if card is None or card["declines"]:
        failed = account.change("invoices", invoice, tried)
        account.tell("invoice.payment_failed", "invoices", failed)
        return failed
    due = _remaining(account, invoice)
    intent = {"type": "payment_intent", "payment_intent": account.new_id("pi_3")}
    payment = {"amount_paid": due, "amount_requested": due, "payment": intent, "status": "paid"}
    payment |= {key: invoice[key] for key in ("customer", "currency")} | {"invoice": invoice["id"]}
    payment |= {"status_transitions": {"paid_at": account.now}}
    made = account.create("invoice_payments", payment)
    account.tell("invoice_payment.paid", "invoice_payments", made)
    paid = _taken(account, invoice, "pay", tried | {"amount_paid": due})
    account.tell("invoice.payment_succeeded", "invoices", paid)
    return paid


def _create_credit_note(account: Account, params: Params) -> Record:
    """Reduce what an open invoice still asks, or credit a paid one to the customer's balance."""
    invoice = account.get("invoices", params["invoice"], "invoice")
    amount, paid = params.get("amount") or 0, invoice["status"] == "paid"
    stage = "post_payment" if paid else "pre_payment"
    credited = f"{stage}_credit_notes_amount"
    given = invoice.get(credited, 0)
    left = total(invoice) - given if paid else _remaining(account, invoice)
    if invoice["status"] in ("draft", "void") or not 0 < amount <= left:
        message = f"A credit note of this {invoice['status']} invoice takes between 1 and {left}."
        raise refuse(message, param="amount")
    name, place = account.new_id("cn_1"), len(account.rows["credit_notes"]) + 1
    note = {"id": name, "effective_at": account.now, "type": stage, "pdf": invoice["invoice_pdf"]}
    note |= params | {key: invoice[key] for key in ("customer", "currency")}
    note |= {"number": f"{invoice['number']}-CN-{place:02}", f"{stage}_amount": amount}
    note |= dict.fromkeys(SUMS, amount) | {"lines": listed(f"/v1/credit_notes/{name}/lines", [])}
    new = {credited: given + amount}
    if paid:
        move_balance(account, invoice, -amount, "credit_note", credit_note=name)
    else:
        new["amount_due"] = invoice["amount_due"] - amount
    reduced = account.change("invoices", invoice, new)
    if reduced["status"] == "open" and reduced["amount_due"] == 0:
        _taken(account, reduced, "pay", {})
    return account.create("credit_notes", note)


def _remaining(account: Account, invoice: Record) -> int:
    left: int = shape(account, "invoices", invoice)["amount_remaining"]
    return left


ACTIONS: Final[Mapping[str, Any]] = {
    "POST /v1/invoices": _create,
    "POST /v1/invoices/create_preview": _create_preview,
    "POST /v1/invoices/*": _update,
    "DELETE /v1/invoices/*": _delete,
    "POST /v1/invoices/*/finalize": _finalize,
    "POST /v1/invoices/*/pay": _pay,
    "POST /v1/invoices/*/void": partial(_step, "void"),
    "POST /v1/invoices/*/mark_uncollectible": partial(_step, "mark_uncollectible"),
    "POST /v1/invoices/*/send": partial(_step, "send"),
    "POST /v1/credit_notes": _create_credit_note,
}
