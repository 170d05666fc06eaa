"""Payment methods (Stripe's test cards) and how an open invoice gets paid, or does not."""

from typing import Any, Final

from sandbox.account import Unit
from sandbox.balance import move_balance
from sandbox.defaults import INVOICE_SETTINGS, Json
from sandbox.errors import StripeError, missing, refuse
from sandbox.forms import Params, required
from sandbox.lists import equals, page
from sandbox.shapes import shape
from sandbox.state import Record

# Test card → brand, last four digits, whether it can be charged.
TEST_CARDS: Final = {
    "pm_card_visa": ("visa", "4242", True),
    "pm_card_mastercard": ("mastercard", "4444", True),
    "pm_card_amex": ("amex", "8431", True),
    "pm_card_chargeCustomerFail": ("visa", "0341", False),
}
PAYABLE: Final = ("open", "uncollectible")


def pay(unit: Unit, params: Params, invoice: str) -> Json:
    """Pay an open or uncollectible invoice; a declined card is a 402 that is recorded."""
    record = unit.get("invoices", invoice)
    if record["status"] not in PAYABLE:
        code = "invoice_already_paid" if record["status"] == "paid" else "invoice_not_open"
        raise refuse(f"Invoice is {record['status']}, not open.", code=code)
    if params.get("paid_out_of_band"):
        due = shape(unit, "invoices", record)["amount_remaining"]
        return shape(unit, "invoices", settle(unit, record, paid=due, amount_paid_off_stripe=due))
    method = params.get("payment_method") or default_method(unit, record)
    if method is None:
        raise refuse("There is no default payment method set on this customer or invoice.")
    return shape(unit, "invoices", charge(unit, record, _usable(unit, record, method)))


def charge(unit: Unit, invoice: Record, method: Record) -> Record:
    """Try to take the money; StripeError 402 when the card declines."""
    attempts = invoice.get("attempt_count", 0) + 1
    tried = {**invoice, "attempted": True, "attempt_count": attempts}
    if method.get("_declines"):
        failed = unit.change("invoices", invoice, attempted=True, attempt_count=attempts)
        unit.emit("invoice.payment_failed", "invoices", failed)
        error = StripeError(
            402,
            "Your card was declined.",
            type="card_error",
            code="card_declined",
            decline_code="generic_decline",
        )
        error.keep = True
        raise error
    due = shape(unit, "invoices", invoice)["amount_remaining"]
    payment = unit.new(
        "invoice_payments",
        {
            "invoice": invoice["id"],
            "customer": invoice["customer"],
            "amount_paid": due,
            "amount_requested": due,
            "currency": invoice["currency"],
            "payment": {"type": "payment_intent", "payment_intent": unit.account.new_id("pi_3")},
            "status": "paid",
            "status_transitions": {"canceled_at": None, "paid_at": unit.now},
        },
    )
    unit.emit("invoice_payment.paid", "invoice_payments", payment)
    paid = settle(unit, invoice, paid=due, attempted=True, attempt_count=tried["attempt_count"])
    unit.emit("invoice.payment_succeeded", "invoices", paid)
    return paid


def settle(unit: Unit, invoice: Record, *, paid: int, **changes: Any) -> Record:
    """Mark an invoice paid."""
    transitions = {**invoice.get("status_transitions", {}), "paid_at": unit.now}
    changes |= {"status": "paid", "auto_advance": False, "status_transitions": transitions}
    done = unit.change(
        "invoices", invoice, amount_paid=invoice.get("amount_paid", 0) + paid, **changes
    )
    unit.emit("invoice.paid", "invoices", done)
    return done


def default_method(unit: Unit, invoice: Record) -> str | None:
    """Return the payment method an automatic charge would use."""
    customer = unit.find("customers", invoice["customer"]) or {}
    settings = customer.get("invoice_settings", INVOICE_SETTINGS)
    found: str | None = invoice.get("default_payment_method") or settings["default_payment_method"]
    return found


def attach(unit: Unit, params: Params, method: str) -> Json:
    """Attach a test card (or a method detached before) to a customer."""
    customer = unit.get("customers", required(params, "customer"), "customer")
    if method in TEST_CARDS:
        record = unit.new("payment_methods", _card(method) | {"customer": customer["id"]})
    else:
        record = {**unit.get("payment_methods", method), "customer": customer["id"]}
        unit.put("payment_methods", record)
    unit.emit("payment_method.attached", "payment_methods", record)
    return shape(unit, "payment_methods", record)


def detach(unit: Unit, _params: Params, method: str) -> Json:
    """Detach a payment method; who had it is only in the event's previous_attributes."""
    old = unit.get("payment_methods", method)
    new = unit.put("payment_methods", {**old, "customer": None})
    unit.emit("payment_method.detached", "payment_methods", new, old)
    customer = unit.find("customers", old.get("customer")) or {}
    settings = customer.get("invoice_settings", INVOICE_SETTINGS)
    if settings["default_payment_method"] == method:
        cleared = {**settings, "default_payment_method": None}
        unit.change("customers", customer, invoice_settings=cleared)
    return shape(unit, "payment_methods", new)


def list_methods(unit: Unit, params: Params, customer: str) -> Json:
    """List a customer's payment methods."""
    unit.get("customers", customer)
    url = f"/v1/customers/{customer}/payment_methods"
    own = params | {"customer": customer}
    same = equals({"customer": customer}, "customer")
    wanted = params.get("type") in (None, "card")
    return page(unit, "payment_methods", own, url, lambda r: wanted and same(r))


def retrieve_method(unit: Unit, _params: Params, customer: str, method: str) -> Json:
    """Return one of a customer's payment methods."""
    record = unit.get("payment_methods", method)
    if record.get("customer") != customer:
        raise missing("PaymentMethod", method)
    return shape(unit, "payment_methods", record)


def list_payments(unit: Unit, params: Params) -> Json:
    """List payments, of one invoice or of all."""
    same = equals(params, "invoice", "status")
    return page(unit, "invoice_payments", params, "/v1/invoice_payments", same)


def refund_to_balance(unit: Unit, invoice: Record, amount: int, **cause: Any) -> None:
    """Give *amount* back as credit on the customer's balance."""
    move_balance(unit, invoice["customer"], -amount, invoice["currency"], "credit_note", **cause)


def _usable(unit: Unit, invoice: Record, method: str) -> Record:
    if method in TEST_CARDS:
        return _card(method)
    record = unit.get("payment_methods", method, "payment_method")
    if record.get("customer") != invoice["customer"]:
        raise refuse("The payment method does not belong to this customer.", param="payment_method")
    return record


def _card(name: str) -> Record:
    brand, last4, chargeable = TEST_CARDS[name]
    blank = dict.fromkeys(("generated_from", "regulated_status", "three_d_secure_usage", "wallet"))
    card = blank | {
        "brand": brand,
        "checks": dict.fromkeys(("address_line1_check", "address_postal_code_check", "cvc_check")),
        "country": "US",
        "display_brand": brand,
        "exp_month": 12,
        "exp_year": 2034,
        "funding": "credit",
        "last4": last4,
        "networks": {"available": [brand], "preferred": None},
    }
    return {"card": card} if chargeable else {"card": card, "_declines": True}
