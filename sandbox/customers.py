"""Customers, their balance, and the portal's sessions."""

from typing import Any, Final

from sandbox.account import Unit
from sandbox.errors import StripeError
from sandbox.forms import Params, merged
from sandbox.lists import equals, page
from sandbox.shapes import INVOICE_SETTINGS, Json, shape
from sandbox.state import Record

PORTAL_SECONDS: Final = 300


def create(unit: Unit, params: Params) -> Json:
    """Create a customer; ``payment_method`` may be one of Stripe's test cards."""
    balance, method = params.pop("balance", None), params.pop("payment_method", None)
    customer = unit.new("customers", _changes({}, params))
    unit.emit("customer.created", "customers", customer)
    if balance:
        move_balance(unit, customer["id"], balance, "usd", "initial")
    if method:
        from sandbox.payments import attach  # noqa: PLC0415

        attach(unit, {"customer": customer["id"]}, method)
    return shape(unit, "customers", unit.get("customers", customer["id"]))


def retrieve(unit: Unit, params: Params, customer: str) -> Json:
    """Return a customer, or the tombstone of a deleted one."""
    record = unit.find("customers", customer)
    return shape(unit, "customers", record or unit.get("customers", customer))


def update(unit: Unit, params: Params, customer: str) -> Json:
    """Change a customer; a new balance becomes an adjustment of the difference."""
    old = unit.get("customers", customer)
    balance = params.pop("balance", None)
    if changes := _changes(old, params):
        unit.change("customers", old, **changes)
    if balance is not None and (step := balance - old.get("balance", 0)):
        move_balance(unit, customer, step, old.get("currency") or "usd", "adjustment")
    return shape(unit, "customers", unit.get("customers", customer))


def delete(unit: Unit, params: Params, customer: str) -> Json:
    """Delete a customer; its invoices stay (a guess for drafts)."""
    old = unit.get("customers", customer)
    unit.put("customers", {"id": customer, "deleted": True})
    unit.emit("customer.deleted", "customers", old)
    return {"id": customer, "object": "customer", "deleted": True}


def list_customers(unit: Unit, params: Params) -> Json:
    """List customers; the email must match exactly."""
    return page(unit, "customers", params, "/v1/customers", equals(params, "email"))


def create_balance_transaction(unit: Unit, params: Params, customer: str) -> Json:
    """Move a customer's balance by hand; negative is in the customer's favour."""
    currency = params["currency"].lower()
    entry = move_balance(unit, customer, params["amount"], currency, "adjustment")
    extra = {k: params[k] for k in ("description", "metadata") if k in params}
    return shape(unit, "balance_transactions", unit.put("balance_transactions", {**entry, **extra}))


def list_balance_transactions(unit: Unit, params: Params, customer: str) -> Json:
    """List the moves of a customer's balance."""
    unit.get("customers", customer)
    url = f"/v1/customers/{customer}/balance_transactions"
    same = equals(params, "invoice")
    return page(unit, "balance_transactions", params | {"customer": customer}, url, same)


def move_balance(  # noqa: PLR0913
    unit: Unit, customer: str, amount: int, currency: str, kind: str, **cause: Any
) -> Record:
    """Add *amount* to a customer's balance and keep the entry; there is no event but the customer's."""
    old = unit.get("customers", customer)
    if old.get("currency") not in (None, currency):
        raise StripeError(400, f"The customer's currency is {old['currency']}.", param="currency")
    ending = old.get("balance", 0) + amount
    unit.change("customers", old, balance=ending, currency=currency)
    entry = {"customer": customer, "amount": amount, "currency": currency, "type": kind}
    return unit.new("balance_transactions", entry | {"ending_balance": ending} | cause)


def create_portal_session(unit: Unit, params: Params) -> Json:
    """Make a short-lived link to the customer's portal page."""
    customer = unit.get("customers", params["customer"], "customer")
    secret = unit.account.new_id("test_")
    kept = {key: params[key] for key in ("return_url", "locale") if params.get(key)}
    session = {
        "customer": customer["id"],
        "url": f"{unit.account.base_url}/p/session/{secret}",
        "_secret": secret,
        "_expires": unit.now + PORTAL_SECONDS,
    }
    return shape(unit, "portal_sessions", unit.new("portal_sessions", session | kept))


def _changes(old: Record, params: Params) -> Params:
    changes = {key: value for key, value in params.items() if value != old.get(key)}
    if "metadata" in params:
        changes["metadata"] = merged(old.get("metadata"), params["metadata"])
    if params.get("invoice_settings"):
        kept = old.get("invoice_settings", INVOICE_SETTINGS)
        changes["invoice_settings"] = {**kept, **params["invoice_settings"]}
    return {key: None if value == "" else value for key, value in changes.items()}
