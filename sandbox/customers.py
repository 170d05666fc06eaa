"""Customers, and the links to their portal."""

from typing import Final

from sandbox.account import Unit
from sandbox.balance import move_balance
from sandbox.defaults import INVOICE_SETTINGS, Json
from sandbox.errors import unsimulated
from sandbox.forms import Params, merged, required
from sandbox.lists import equals, page
from sandbox.payments import attach
from sandbox.shapes import shape
from sandbox.state import Record

PORTAL_SECONDS: Final = 300
FLOWS: Final = (
    "customer_update",
    "subscription_cancel",
    "subscription_pause",
    "subscription_update",
    "subscription_update_confirm",
)


def create(unit: Unit, params: Params) -> Json:
    """Create a customer; ``payment_method`` may be one of Stripe's test cards."""
    balance, method = params.pop("balance", None), params.pop("payment_method", None)
    customer = unit.new("customers", _changes({}, params))
    unit.emit("customer.created", "customers", customer)
    if balance:
        move_balance(unit, customer["id"], balance, "usd", "initial")
    if method:
        attach(unit, {"customer": customer["id"]}, method)
    return shape(unit, "customers", unit.get("customers", customer["id"]))


def retrieve(unit: Unit, _params: Params, customer: str) -> Json:
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


def delete(unit: Unit, _params: Params, customer: str) -> Json:
    """Delete a customer; its invoices stay (a guess for drafts)."""
    old = unit.get("customers", customer)
    unit.put("customers", {"id": customer, "deleted": True})
    unit.emit("customer.deleted", "customers", old)
    return {"id": customer, "object": "customer", "deleted": True}


def list_customers(unit: Unit, params: Params) -> Json:
    """List customers; the email must match exactly."""
    return page(unit, "customers", params, "/v1/customers", equals(params, "email"))


def create_portal_session(unit: Unit, params: Params) -> Json:
    """Make a short-lived link to the customer's portal page."""
    customer = unit.get("customers", required(params, "customer"), "customer")
    secret = unit.account.new_id("test_")
    kept = {key: params[key] for key in ("return_url", "locale") if params.get(key)}
    session = {
        "customer": customer["id"],
        "url": f"{unit.account.base_url}/p/session/{secret}",
        "_secret": secret,
        "_expires": unit.now + PORTAL_SECONDS,
        "flow": _flow(params["flow_data"]) if params.get("flow_data") else None,
    }
    return shape(unit, "portal_sessions", unit.new("portal_sessions", session | kept))


def _flow(sent: Params) -> Json:
    if sent["type"] not in ("payment_method_update", "customer_update"):
        raise unsimulated(f"the portal flow {sent['type']}")
    after = sent.get("after_completion") or {"type": "portal_homepage"}
    nothing = ("hosted_confirmation", "redirect")
    return dict.fromkeys(FLOWS) | {
        "type": sent["type"],
        "after_completion": dict.fromkeys(nothing) | after,
    }


def _changes(old: Record, params: Params) -> Params:
    changes = {key: value for key, value in params.items() if value != old.get(key)}
    if "metadata" in params:
        changes["metadata"] = merged(old.get("metadata"), params["metadata"])
    if params.get("invoice_settings"):
        kept = old.get("invoice_settings", INVOICE_SETTINGS)
        changes["invoice_settings"] = {**kept, **params["invoice_settings"]}
    return {key: None if value == "" else value for key, value in changes.items()}
