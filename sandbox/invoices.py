"""Invoices: drafts, finalization by a call or by the clock, and the transitions after it."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from sandbox.account import DAY, HOUR, Account, Record
from sandbox.customers import add_to_balance, card_for, get_required
from sandbox.errors import StripeError, bad_request
from sandbox.lines import change_lines, claim_pending, get_editable
from sandbox.params import Params
from sandbox.revisions import clone_lines, cloned_params, original_of, record_revision
from sandbox.sdk import Json
from sandbox.serializers import SUMS, invoice_prefix, invoice_total, list_object, serialize

EDITABLE_LATER: Final = {"metadata", "auto_advance", "default_payment_method", "footer"}
# Delay of finalization while invoice.created has not been delivered to every endpoint.
UNDELIVERED_DELAY: Final = 72 * HOUR
# Below this Stripe charges nothing and carries the amount to the customer's balance.
MINIMUM_CHARGE: Final = 50
OPEN: Final = ("open",)
OWING: Final = ("open", "uncollectible")
# Transition → source statuses, target status, event.
TRANSITIONS: Final[Mapping[str, tuple[tuple[str, ...], str, str]]] = {
    "finalize": (("draft",), "open", "finalized"),
    "send": (OPEN, "", "sent"),
    "pay": (OWING, "paid", "paid"),
    "void": (OWING, "void", "voided"),
    "mark_uncollectible": (OPEN, "uncollectible", "marked_uncollectible"),
}


def run_timers(account: Account) -> None:
    """Finalize every draft that is due; after a failure emit finalization_failed and stop advancing it."""
    now, invoices = account.now, account.rows["invoices"].values()
    for draft in [i for i in invoices if 0 < (i.get("automatically_finalizes_at") or 0) <= now]:
        with account.transaction():
            try:
                _finalize(account, {}, draft["id"])
            except StripeError:
                account.rollback()
                stop = {"auto_advance": False, "automatically_finalizes_at": None}
                stopped = account.change("invoices", draft, stop)
                account.emit("invoice.finalization_failed", "invoices", stopped)


def mark_delivered(account: Account, invoice: str) -> None:
    """Record that every endpoint has acknowledged ``invoice.created``: the draft finalizes in an hour."""
    record = account.rows["invoices"].get(invoice)
    if record is not None and not record.get("webhooks_delivered_at"):
        changes = {"webhooks_delivered_at": account.now}
        if record.get("automatically_finalizes_at") == record["created"] + UNDELIVERED_DELAY:
            changes["automatically_finalizes_at"] = account.now + HOUR
        account.put("invoices", record | changes)


def _create(account: Account, params: Params) -> Record:
    """Create a draft: empty, with the customer's pending items if wanted, or with those of its original."""
    params = cloned_params(account, params)
    owner = get_required(account, params, "customer")
    currency = (params.pop("currency", None) or owner.get("currency") or "usd").lower()
    account.change("customers", owner, {"currency": owner.get("currency") or currency})
    draft = {"id": params.get("id") or account.new_id("in_1"), "customer": owner["id"]}
    draft |= {"currency": currency, "status": "draft", "held": [], "created": account.now}
    if not account.subscribers("invoice.created"):
        draft["webhooks_delivered_at"] = account.now
    if params.pop("pending_invoice_items_behavior", None) == "include":
        draft["held"] = claim_pending(account, draft)
    if params.get("from_invoice"):
        draft["held"] = clone_lines(account, draft | {"from_invoice": params["from_invoice"]})
    return account.create("invoices", draft | _validated_changes(account, draft, params))


def _update(account: Account, params: Params, invoice: str) -> Record:
    """Change an invoice; once finalized only a few of its fields."""
    if params.keys() - EDITABLE_LATER:
        get_editable(account, invoice)
    old = account.get("invoices", invoice)
    return account.change("invoices", old, _validated_changes(account, old, params))


def _validated_changes(account: Account, old: Record, params: Params) -> Record:
    """Return the validated changes, with the time at which the draft then finalizes by itself."""
    at, whole = params.pop("automatically_finalizes_at", None), {**old, **params}
    dated = whole.get("due_date") or whole.get("days_until_due") is not None
    if (whole.get("collection_method") == "send_invoice") != bool(dated):
        message = "A due date goes with collection_method=send_invoice, and only there."
        raise bad_request(
            message, param="days_until_due" if "days_until_due" in params else "due_date"
        )
    advance = bool(whole.get("auto_advance"))
    if at is not None and not advance:
        message = "automatically_finalizes_at needs auto_advance."
        raise bad_request(message, param="automatically_finalizes_at")
    if at is None and whole["status"] == "draft" and advance != old.get("auto_advance", False):
        delivered = whole.get("webhooks_delivered_at")
        at = account.now + HOUR if delivered else whole["created"] + UNDELIVERED_DELAY
        return params | {"automatically_finalizes_at": at if advance else None}
    return params if at is None else params | {"automatically_finalizes_at": at}


def _delete(account: Account, _: Params, invoice: str) -> Record:
    """Delete a draft and its items (a guess)."""
    draft = get_editable(account, invoice)
    for item in draft["held"]:
        account.drop("invoiceitems", item)
    return account.remove("invoices", draft)


def _create_preview(account: Account, params: Params) -> Json:
    """Return the invoice that these items and the customer's pending ones would make; store nothing."""
    draft: Params = {name: params[name] for name in ("customer", "currency") if name in params}
    draft |= {"id": account.new_id("upcoming_in_1"), "pending_invoice_items_behavior": "include"}
    preview, added = _create(account, draft)["id"], {"lines": params.get("invoice_items") or []}
    made = change_lines("add", account, added, preview, "invoice_items")
    shown = serialize(account, "invoices", made | {"webhooks_delivered_at": None})
    account.rollback()
    return shown


def _finalize(account: Account, params: Params, invoice: str) -> Record:
    """Number and freeze a draft; it is paid at once if nothing is due, collected with auto_advance.

    The invoice that it revises is void from then on.
    """
    draft = get_editable(account, invoice)
    if original := original_of(account, draft):
        record_revision(account, _take_step("void", account, {}, original["id"]), invoice)
    advance = params.get("auto_advance", draft.get("auto_advance", False))
    frozen = (
        _assign_number(account, draft) | _apply_balance(account, draft) | {"auto_advance": advance}
    )
    bill = _transition(account, draft, "finalize", frozen)
    if bill["amount_due"] == 0:
        return _transition(account, bill, "pay", {"attempted": True})
    if not advance:
        return bill
    if bill.get("collection_method") == "send_invoice":
        return _transition(account, bill, "send", {})
    return _charge(account, bill, card_for(account, bill))


def _assign_number(account: Account, draft: Record) -> Record:
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


def _apply_balance(account: Account, draft: Record) -> Record:
    """Apply the customer's balance to the bill, and carry an amount too small to charge over to it."""
    customer, amount = account.rows["customers"].get(draft["customer"], {}), invoice_total(draft)
    mine = customer.get("currency") == draft["currency"] and not customer.get("deleted")
    starting = customer.get("balance", 0) if mine else 0
    whole = amount + starting
    due, ending = (max(whole, 0), min(whole, 0)) if amount > 0 else (0, whole)
    cause = "applied_to_invoice"
    if 0 < due < MINIMUM_CHARGE:
        due, ending, cause = 0, ending + due, "invoice_too_small"
    if mine and ending != starting:
        add_to_balance(account, draft, ending - starting, cause, invoice=draft["id"])
    return {"starting_balance": starting, "ending_balance": ending, "amount_due": due}


def _take_step(name: str, account: Account, _: Params, invoice: str) -> Record:
    """Void an invoice, which returns the applied balance; mark it uncollectible; or send it."""
    old, more = _get_for_step(account, invoice, name), {}
    if name == "void" and (applied := old["ending_balance"] - old["starting_balance"]):
        add_to_balance(account, old, -applied, "unapplied_from_invoice", invoice=invoice)
    if name == "mark_uncollectible":
        more = {"status_details": {"uncollectible": {"reason": "user_forgiven"}}}
    return _transition(account, old, name, more)


def _pay(account: Account, params: Params, invoice: str) -> Record:
    """Pay an open or uncollectible invoice; a declined card is a 402 that is recorded."""
    old = _get_for_step(account, invoice, "pay")
    if params.get("paid_out_of_band"):
        due = _remaining(account, old)
        return _transition(account, old, "pay", {"amount_paid": due, "amount_paid_off_stripe": due})
    card = card_for(account, old, params.get("payment_method"))
    if card is None:
        raise bad_request("There is no default payment method set on this customer or invoice.")
    if (paid := _charge(account, old, card))["status"] != "paid":
        reason = {"code": "card_declined", "decline_code": "generic_decline"}
        raise StripeError(402, "Your card was declined.", commit=True, type="card_error", **reason)
    return paid


def _get_for_step(account: Account, invoice: str, name: str) -> Record:
    """Return an invoice whose status allows the transition *name*; StripeError 400 otherwise."""
    record, sources = account.get("invoices", invoice), TRANSITIONS[name][0]
    if record["status"] not in sources:
        code = "invoice_already_paid" if record["status"] == "paid" else "invoice_not_open"
        message = f"This invoice is {record['status']}; it must be {' or '.join(sources)}."
        raise bad_request(message, code=code)
    return record


def _transition(account: Account, old: Record, name: str, more: Record) -> Record:
    """Apply the transition *name* to an invoice, and emit the update and the transition's event."""
    _, target, event = TRANSITIONS[name]
    if target:
        moved = {"status": target, "status_transitions": {f"{event}_at": account.now}}
        old = account.change("invoices", old, moved | {"auto_advance": False} | more)
    account.emit(f"invoice.{event}", "invoices", old)
    return old


def _charge(account: Account, invoice: Record, card: Record | None) -> Record:
    tried = {"attempted": True, "attempt_count": invoice.get("attempt_count", 0) + 1}
    if card is None or card["declines"]:
        failed = account.change("invoices", invoice, tried)
        account.emit("invoice.payment_failed", "invoices", failed)
        return failed
    due = _remaining(account, invoice)
    intent = {"type": "payment_intent", "payment_intent": account.new_id("pi_3")}
    payment = {"amount_paid": due, "amount_requested": due, "payment": intent, "status": "paid"}
    payment |= {key: invoice[key] for key in ("customer", "currency")} | {"invoice": invoice["id"]}
    payment |= {"status_transitions": {"paid_at": account.now}}
    made = account.create("invoice_payments", payment)
    account.emit("invoice_payment.paid", "invoice_payments", made)
    paid = _transition(account, invoice, "pay", tried | {"amount_paid": due})
    account.emit("invoice.payment_succeeded", "invoices", paid)
    return paid


def _create_credit_note(account: Account, params: Params) -> Record:
    """Reduce the amount due of an open invoice, or credit a paid one to the customer's balance."""
    invoice = account.get("invoices", params["invoice"], "invoice")
    amount, paid = params.get("amount") or 0, invoice["status"] == "paid"
    stage = "post_payment" if paid else "pre_payment"
    credited = f"{stage}_credit_notes_amount"
    before = invoice.get(credited, 0)
    left = invoice_total(invoice) - before if paid else _remaining(account, invoice)
    if invoice["status"] in ("draft", "void") or not 0 < amount <= left:
        message = f"A credit note of this {invoice['status']} invoice takes between 1 and {left}."
        raise bad_request(message, param="amount")
    name, sequence = account.new_id("cn_1"), len(account.rows["credit_notes"]) + 1
    note = {"id": name, "effective_at": account.now, "type": stage, "pdf": invoice["invoice_pdf"]}
    note |= params | {key: invoice[key] for key in ("customer", "currency")}
    note |= {"number": f"{invoice['number']}-CN-{sequence:02}", f"{stage}_amount": amount}
    note |= dict.fromkeys(SUMS, amount) | {
        "lines": list_object(f"/v1/credit_notes/{name}/lines", [])
    }
    new = {credited: before + amount}
    if paid:
        add_to_balance(account, invoice, -amount, "credit_note", credit_note=name)
    else:
        new["amount_due"] = invoice["amount_due"] - amount
    reduced = account.change("invoices", invoice, new)
    if reduced["status"] == "open" and reduced["amount_due"] == 0:
        _transition(account, reduced, "pay", {})
    return account.create("credit_notes", note)


def _remaining(account: Account, invoice: Record) -> int:
    left: int = serialize(account, "invoices", invoice)["amount_remaining"]
    return left


ACTIONS: Final[Mapping[str, Any]] = {
    "POST /v1/invoices": _create,
    "POST /v1/invoices/create_preview": _create_preview,
    "POST /v1/invoices/*": _update,
    "DELETE /v1/invoices/*": _delete,
    "POST /v1/invoices/*/finalize": _finalize,
    "POST /v1/invoices/*/pay": _pay,
    "POST /v1/invoices/*/void": partial(_take_step, "void"),
    "POST /v1/invoices/*/mark_uncollectible": partial(_take_step, "mark_uncollectible"),
    "POST /v1/invoices/*/send": partial(_take_step, "send"),
    "POST /v1/credit_notes": _create_credit_note,
}
