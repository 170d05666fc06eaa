"""Collection of finalized invoices: transitions, attempts to charge, declines, retries, overdue bills."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from sandbox.account import DAY, Account, Record
from sandbox.customers import add_to_balance, card_for
from sandbox.errors import StripeError, bad_request
from sandbox.params import Params
from sandbox.serializers import serialize

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
# Seconds until each automatic retry of a failed charge (a guess: Stripe chooses the times).
RETRY_DELAYS: Final = (3 * DAY, 5 * DAY, 7 * DAY)
# Result of a charge → status of its payment intent, code and decline code of its error.
FAILURES: Final[Mapping[str, tuple[str, str, str | None]]] = {
    "declined": ("requires_payment_method", "card_declined", "insufficient_funds"),
    "action_required": ("requires_action", "authentication_required", None),
    "no_card": ("requires_payment_method", "missing", None),
}
MESSAGES: Final = {
    "card_declined": "Your card has insufficient funds.",
    "authentication_required": "Your card was declined. This transaction requires authentication.",
    "missing": "There is no default payment method set on this customer or invoice.",
}


def transition(account: Account, old: Record, name: str, more: Record) -> Record:
    """Apply the transition *name* to an invoice, and emit the update and the transition's event."""
    _, target, event = TRANSITIONS[name]
    if target:
        moved = {"status": target, "status_transitions": {f"{event}_at": account.now}}
        stopped = {"auto_advance": False, "next_payment_attempt": None}
        old = account.change("invoices", old, moved | stopped | more)
    if target in ("paid", "uncollectible"):
        _set_delinquent(account, old, delinquent=False)
    account.emit(f"invoice.{event}", "invoices", old)
    return old


def charge_automatically(account: Account, invoice: Record) -> Record:
    """Charge the default card of an open invoice; a failure is retried, and makes the customer delinquent."""
    tried = charge(account, invoice, card_for(account, invoice))
    if tried["status"] == "paid":
        return tried
    _set_delinquent(account, tried, delinquent=True)
    number = tried["attempt_count"]
    later = account.now + RETRY_DELAYS[number - 1] if number <= len(RETRY_DELAYS) else None
    return account.change("invoices", tried, {"next_payment_attempt": later})


def charge(account: Account, invoice: Record, card: Record | None) -> Record:
    """Try to charge *card* for what remains of an invoice; its payment shows the outcome."""
    tried = {"attempted": True, "attempt_count": invoice.get("attempt_count", 0) + 1}
    failure = card.get("fails") if card else "no_card"
    payment, intent = _payment_of(account, invoice)
    if failure:
        status, code, decline = FAILURES[failure]
        error = {"type": "card_error", "code": code, "message": MESSAGES[code]}
        error |= {"decline_code": decline} if decline else {}
        tried_charge = _create_charge(account, intent, "failed") if failure == "declined" else {}
        failed_intent = {"status": status, "last_payment_error": error}
        account.change("payment_intents", intent, failed_intent | tried_charge)
        failed = account.change("invoices", invoice, tried)
        account.emit("invoice.payment_failed", "invoices", failed)
        if failure == "action_required":
            account.emit("invoice.payment_action_required", "invoices", failed)
        return failed
    due = remaining(account, invoice)
    received = {"status": "succeeded", "last_payment_error": None, "amount_received": due}
    made = _create_charge(account, intent, "succeeded")
    account.change("payment_intents", intent, received | made)
    done = {"amount_paid": due, "status": "paid", "status_transitions": {"paid_at": account.now}}
    account.emit(
        "invoice_payment.paid", "invoice_payments", account.put("invoice_payments", payment | done)
    )
    paid = transition(account, invoice, "pay", tried | {"amount_paid": due})
    account.emit("invoice.payment_succeeded", "invoices", paid)
    return paid


def _create_charge(account: Account, intent: Record, status: str) -> Record:
    """Create the charge of one attempt; returns how the payment intent names it."""
    paid, terms = status == "succeeded", {k: intent[k] for k in ("amount", "currency", "customer")}
    outcome = {"status": status, "paid": paid, "captured": paid}
    charge = account.create("charges", terms | outcome | {"payment_intent": intent["id"]})
    account.emit(f"charge.{status}", "charges", charge)
    return {"latest_charge": charge["id"]}


def remaining(account: Account, invoice: Record) -> int:
    """Return what is still to be paid."""
    left: int = serialize(account, "invoices", invoice)["amount_remaining"]
    return left


def run_timers(account: Account) -> None:
    """Retry the charges that are due, and tell of invoices that have passed their due date."""
    now = account.now
    for bill in [row for row in account.rows["invoices"].values() if row["status"] == "open"]:
        with account.transaction():
            if 0 < (bill.get("next_payment_attempt") or 0) <= now:
                charge_automatically(account, bill)
            elif bill.get("due_date") and bill["due_date"] <= now and not bill.get("told_overdue"):
                account.emit("invoice.overdue", "invoices", bill)
                account.put("invoices", bill | {"told_overdue": True})
                _set_delinquent(account, bill, delinquent=True)


def _payment_of(account: Account, invoice: Record) -> tuple[Record, Record]:
    """Return the open payment of an invoice and its payment intent, made at the first attempt."""
    for payment in account.owned_by("invoice_payments", invoice["customer"]).values():
        if payment["invoice"] == invoice["id"] and payment["status"] == "open":
            return payment, account.get("payment_intents", payment["payment"]["payment_intent"])
    due, owner = remaining(account, invoice), {k: invoice[k] for k in ("customer", "currency")}
    terms = {"amount": due, "status": "requires_payment_method", "payment_method_types": ["card"]}
    intent = account.create("payment_intents", owner | terms)
    details = {"type": "payment_intent", "payment_intent": intent["id"]}
    requested = {"amount_requested": due, "payment": details, "status": "open"}
    return account.create(
        "invoice_payments", owner | requested | {"invoice": invoice["id"]}
    ), intent


def _set_delinquent(account: Account, invoice: Record, *, delinquent: bool) -> None:
    owner = account.rows["customers"].get(invoice["customer"], {"deleted": True})
    if not owner.get("deleted") and owner.get("delinquent", False) != delinquent:
        account.change("customers", owner, {"delinquent": delinquent})


def get_for_step(account: Account, invoice: str, name: str) -> Record:
    """Return an invoice whose status allows the transition *name*; StripeError 400 otherwise."""
    record, sources = account.get("invoices", invoice), TRANSITIONS[name][0]
    if record["status"] not in sources:
        code = "invoice_already_paid" if record["status"] == "paid" else "invoice_not_open"
        message = f"This invoice is {record['status']}; it must be {' or '.join(sources)}."
        raise bad_request(message, code=code)
    return record


def take_step(name: str, account: Account, _: Params, invoice: str) -> Record:
    """Void an invoice, which returns the applied balance; mark it uncollectible; or send it."""
    old, more = get_for_step(account, invoice, name), {}
    if name == "void" and (applied := old["ending_balance"] - old["starting_balance"]):
        add_to_balance(account, old, -applied, "unapplied_from_invoice", invoice=invoice)
    if name == "mark_uncollectible":
        more = {"status_details": {"uncollectible": {"reason": "user_forgiven"}}}
    return transition(account, old, name, more)


def _pay(account: Account, params: Params, invoice: str) -> Record:
    """Pay an open or uncollectible invoice; a declined card is a 402 that is recorded."""
    old = get_for_step(account, invoice, "pay")
    if params.get("paid_out_of_band"):
        due = remaining(account, old)
        return transition(account, old, "pay", {"amount_paid": due, "amount_paid_off_stripe": due})
    card = card_for(account, old, params.get("payment_method"))
    if card is None:
        raise bad_request("There is no default payment method set on this customer or invoice.")
    if (paid := charge(account, old, card))["status"] != "paid":
        _, code, decline = FAILURES[card["fails"]]
        detail = {"code": code} | ({"decline_code": decline} if decline else {})
        raise StripeError(402, MESSAGES[code], commit=True, type="card_error", **detail)
    return paid


ACTIONS: Final[Mapping[str, Any]] = {
    "POST /v1/invoices/*/pay": _pay,
    "POST /v1/invoices/*/void": partial(take_step, "void"),
    "POST /v1/invoices/*/mark_uncollectible": partial(take_step, "mark_uncollectible"),
    "POST /v1/invoices/*/send": partial(take_step, "send"),
}
