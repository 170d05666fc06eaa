"""Invoices until they are finalized, by a call or by the clock."""

from collections.abc import Mapping
from typing import Any, Final

from sandbox.account import DAY, HOUR, Account, Record
from sandbox.customers import add_to_balance, get_required
from sandbox.discounts import discounts_of
from sandbox.errors import StripeError, bad_request
from sandbox.lines import change_lines, claim_pending, get_editable
from sandbox.params import Params
from sandbox.payments import charge_automatically, take_step, transition
from sandbox.revisions import clone_lines, cloned_params, original_of, record_revision
from sandbox.sdk import Json
from sandbox.serializers import invoice_prefix, serialize
from sandbox.totals import compute, require_location, require_taxable

EDITABLE_LATER: Final = {"metadata", "auto_advance", "default_payment_method", "footer"}
# Delay of finalization while invoice.created has not been delivered to every endpoint.
UNDELIVERED_DELAY: Final = 72 * HOUR
# What an invoice keeps of its customer from finalization on.
BILLED: Final = ("name", "email", "address", "phone", "tax_exempt")
# Below this Stripe charges nothing and carries the amount to the customer's balance.
MINIMUM_CHARGE: Final = 50


def run_timers(account: Account) -> None:
    """Finalize every draft that is due; after a failure emit finalization_failed and stop advancing it."""
    now, invoices = account.now, account.rows["invoices"].values()
    for draft in [i for i in invoices if 0 < (i.get("automatically_finalizes_at") or 0) <= now]:
        with account.transaction():
            try:
                _finalize(account, {}, draft["id"])
            except StripeError as error:
                account.rollback()
                stop: Record = {"auto_advance": False, "automatically_finalizes_at": None}
                stop |= {"last_finalization_error": error.body["error"]}
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
    draft |= {"discounts": discounts_of(account, owner, params)}
    draft |= {"automatic_tax": {"enabled": account.settings.automatic_tax}}
    if not account.subscribers("invoice.created"):
        draft["webhooks_delivered_at"] = account.now
    if params.pop("pending_invoice_items_behavior", None) == "include":
        draft["held"] = claim_pending(account, draft)
    if params.get("from_invoice"):
        draft["held"] = clone_lines(account, draft | {"from_invoice": params["from_invoice"]})
    draft |= _validated_changes(account, draft, params)
    require_taxable(account, draft)
    return account.create("invoices", draft)


def _update(account: Account, params: Params, invoice: str) -> Record:
    """Change an invoice; once finalized only a few of its fields."""
    if params.keys() - EDITABLE_LATER:
        get_editable(account, invoice)
    old = account.get("invoices", invoice)
    if "discounts" in params:
        params["discounts"] = discounts_of(account, {}, params)
    changes = _validated_changes(account, old, params)
    require_taxable(account, old | changes)
    return account.change("invoices", old, changes)


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
    passed = ("customer", "currency", "automatic_tax", "discounts")
    draft: Params = {name: params[name] for name in passed if name in params}
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
    require_location(account, draft)
    if original := original_of(account, draft):
        record_revision(account, take_step("void", account, {}, original["id"]), invoice)
    advance = params.get("auto_advance", draft.get("auto_advance", False))
    frozen = (
        _assign_number(account, draft) | _apply_balance(account, draft) | {"auto_advance": advance}
    )
    bill = transition(account, draft, "finalize", frozen)
    if bill["amount_due"] == 0:
        return transition(account, bill, "pay", {"attempted": True})
    if not advance:
        return bill
    if bill.get("collection_method") == "send_invoice":
        return transition(account, bill, "send", {})
    return charge_automatically(account, bill)


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
        "billed": {k: customer[k] for k in BILLED if k in customer},
    }


def _apply_balance(account: Account, draft: Record) -> Record:
    """Apply the customer's balance to the bill, and carry an amount too small to charge over to it."""
    customer, amount = (
        account.rows["customers"].get(draft["customer"], {}),
        compute(account, draft).total,
    )
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


ACTIONS: Final[Mapping[str, Any]] = {
    "POST /v1/invoices": _create,
    "POST /v1/invoices/create_preview": _create_preview,
    "POST /v1/invoices/*": _update,
    "DELETE /v1/invoices/*": _delete,
    "POST /v1/invoices/*/finalize": _finalize,
}
