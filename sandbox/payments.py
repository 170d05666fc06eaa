"""Money for an invoice: the steps it takes once it is a bill, payments and credit notes."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from sandbox.account import Record, Unit
from sandbox.customers import TEST_CARDS, default_card, move_balance, test_card
from sandbox.errors import StripeError, refuse
from sandbox.forms import Params
from sandbox.resources import changes
from sandbox.shapes import listed, shape, total


class Step(NamedTuple):
    """From which states it is taken, to which one, where that is noted, and what tells of it."""

    sources: tuple[str, ...]
    target: str
    mark: str
    event: str


STEPS: Final[Mapping[str, Step]] = {
    "finalize": Step(("draft",), "open", "finalized_at", "finalized"),
    "send": Step(("open",), "", "", "sent"),
    "pay": Step(("open", "uncollectible"), "paid", "paid_at", "paid"),
    "void": Step(("open", "uncollectible"), "void", "voided_at", "voided"),
    "mark_uncollectible": Step(
        ("open",), "uncollectible", "marked_uncollectible_at", "marked_uncollectible"
    ),
}


def step(name: str, unit: Unit, _: Params, invoice: str) -> Record:
    """Void an invoice, which gives back what it took of the balance; give it up; or send it."""
    old, more = _ready(unit, invoice, name), {}
    if name == "void" and (applied := old["ending_balance"] - old["starting_balance"]):
        owner, currency = old["customer"], old["currency"]
        cause = "unapplied_from_invoice"
        move_balance(unit, owner, -applied, currency, cause, invoice=invoice)
    if name == "mark_uncollectible":
        more = {"status_details": {"uncollectible": {"reason": "user_forgiven"}}}
    return taken(unit, old, name, **more)


def pay(unit: Unit, params: Params, invoice: str) -> Record:
    """Pay an open or uncollectible invoice; a declined card is a 402 that is recorded."""
    old = _ready(unit, invoice, "pay")
    if params.get("paid_out_of_band"):
        due = shape(unit, "invoices", old)["amount_remaining"]
        return taken(unit, old, "pay", amount_paid=due, amount_paid_off_stripe=due)
    card = _card(unit, old, params.get("payment_method"))
    if card is None:
        raise refuse("There is no default payment method set on this customer or invoice.")
    paid = _charged(unit, old, card)
    if paid["status"] != "paid":
        reason = {"code": "card_declined", "decline_code": "generic_decline"}
        raise StripeError(402, "Your card was declined.", keep=True, type="card_error", **reason)
    return paid


def collect(unit: Unit, invoice: Record) -> Record:
    """Do what Stripe does by itself with a bill that advances: send it or charge it."""
    if invoice.get("collection_method") == "send_invoice":
        return taken(unit, invoice, "send")
    card = _card(unit, invoice, None)
    return _charged(unit, invoice, card) if card else _failed(unit, invoice)


def create_credit_note(unit: Unit, params: Params) -> Record:
    """Reduce what an open invoice still asks, or credit a paid one to the customer's balance."""
    invoice, amount = unit.get("invoices", params["invoice"], "invoice"), params.get("amount") or 0
    stage = "post_payment" if invoice["status"] == "paid" else "pre_payment"
    credited = f"{stage}_credit_notes_amount"
    given = invoice.get(credited, 0)
    left = total(invoice) - given
    if stage == "pre_payment":
        left = shape(unit, "invoices", invoice)["amount_remaining"]
    if invoice["status"] in ("draft", "void") or not 0 < amount <= left:
        message = f"A credit note of this {invoice['status']} invoice takes between 1 and {left}."
        raise refuse(message, param="amount")
    sums = ("subtotal", "subtotal_excluding_tax", "total", "total_excluding_tax")
    note = {"effective_at": unit.now, "id": unit.account.new_id("cn_1"), "type": stage}
    note |= changes({}, params) | dict.fromkeys((*sums, f"{stage}_amount"), amount)
    note |= {key: invoice[key] for key in ("customer", "currency")}
    note["number"] = f"{invoice['number']}-CN-{len(unit.account.rows['credit_notes']) + 1:02}"
    note["pdf"] = invoice["invoice_pdf"]
    note["lines"] = listed(f"/v1/credit_notes/{note['id']}/lines", [])
    new = {credited: given + amount}
    if stage == "pre_payment":
        new["amount_due"] = invoice["amount_due"] - amount
    else:
        owner, currency = invoice["customer"], invoice["currency"]
        move_balance(unit, owner, -amount, currency, "credit_note", credit_note=note["id"])
    reduced = unit.change("invoices", invoice, **new)
    if reduced["status"] == "open" and reduced["amount_due"] == 0:
        taken(unit, reduced, "pay")
    return unit.create("credit_notes", note)


def _ready(unit: Unit, invoice: str, name: str) -> Record:
    record = unit.get("invoices", invoice)
    if record["status"] not in STEPS[name].sources:
        code = "invoice_already_paid" if record["status"] == "paid" else "invoice_not_open"
        wanted = " or ".join(STEPS[name].sources)
        raise refuse(f"This invoice is {record['status']}; it must be {wanted}.", code=code)
    return record


def taken(unit: Unit, old: Record, name: str, **more: Any) -> Record:
    """Move an invoice a step along, and tell both the change and the step."""
    _, target, mark, event = STEPS[name]
    if target:
        marks = {**old.get("status_transitions", {}), mark: unit.now}
        new = {"status": target, "status_transitions": marks, "auto_advance": False, **more}
        old = unit.change("invoices", old, **new)
    unit.tell(f"invoice.{event}", "invoices", old)
    return old


def _card(unit: Unit, invoice: Record, named: str | None) -> Record | None:
    customer = unit.find("customers", invoice["customer"]) or {}
    method = named or invoice.get("default_payment_method") or default_card(customer)
    if method is None or method in TEST_CARDS:
        return None if method is None else test_card(method)
    card = unit.get("payment_methods", method, "payment_method")
    if card.get("customer") != invoice["customer"]:
        raise refuse("The payment method does not belong to this customer.", param="payment_method")
    return card


def _charged(unit: Unit, invoice: Record, card: Record) -> Record:
    if card["declines"]:
        return _failed(unit, invoice)
    due = shape(unit, "invoices", invoice)["amount_remaining"]
    intent = {"type": "payment_intent", "payment_intent": unit.account.new_id("pi_3")}
    payment = {"amount_paid": due, "amount_requested": due, "payment": intent, "status": "paid"}
    payment |= {key: invoice[key] for key in ("customer", "currency")} | {"invoice": invoice["id"]}
    payment |= {"status_transitions": {"paid_at": unit.now}}
    unit.tell("invoice_payment.paid", "invoice_payments", unit.create("invoice_payments", payment))
    tried = {"attempted": True, "attempt_count": invoice.get("attempt_count", 0) + 1}
    paid = taken(unit, invoice, "pay", amount_paid=due, **tried)
    unit.tell("invoice.payment_succeeded", "invoices", paid)
    return paid


def _failed(unit: Unit, invoice: Record) -> Record:
    attempts = invoice.get("attempt_count", 0) + 1
    failed = unit.change("invoices", invoice, attempted=True, attempt_count=attempts)
    unit.tell("invoice.payment_failed", "invoices", failed)
    return failed
