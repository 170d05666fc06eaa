"""Customers: their balance, their cards and the link to their portal. And what they are sold."""

from typing import Any, Final

from sandbox.account import Record, Unit
from sandbox.errors import refuse, unsimulated
from sandbox.forms import Params
from sandbox.resources import changes

PORTAL_SECONDS: Final = 300
# Test card → brand, last four digits, whether it can be charged.
TEST_CARDS: Final = {
    "pm_card_visa": ("visa", "4242", True),
    "pm_card_mastercard": ("mastercard", "4444", True),
    "pm_card_chargeCustomerFail": ("visa", "0341", False),
}


def create(unit: Unit, params: Params) -> Record:
    """Create a customer, maybe with a balance and one of Stripe's test cards."""
    balance, card = params.pop("balance", None), params.pop("payment_method", None)
    customer = unit.create("customers", changes({}, params))
    if balance:
        move_balance(unit, customer["id"], balance, "usd", "initial")
    if card:
        attach(unit, {"customer": customer["id"]}, card)
    return unit.get("customers", customer["id"])


def update(unit: Unit, params: Params, customer: str) -> Record:
    """Change a customer; a new balance becomes an adjustment by the difference."""
    old, balance = unit.get("customers", customer), params.pop("balance", None)
    if new := changes(old, params):
        unit.change("customers", old, **new)
    if balance is not None and (step := balance - old.get("balance", 0)):
        move_balance(unit, customer, step, old.get("currency") or "usd", "adjustment")
    return unit.get("customers", customer)


def delete(unit: Unit, _: Params, customer: str) -> Record:
    """Delete a customer; a tombstone and the invoices stay (for drafts a guess)."""
    unit.remove("customers", unit.get("customers", customer))
    return unit.put("customers", {"id": customer, "deleted": True})


def adjust_balance(unit: Unit, params: Params, customer: str) -> Record:
    """Move a customer's balance by hand; negative is in the customer's favour."""
    amount, currency = params.pop("amount"), params.pop("currency").lower()
    return move_balance(unit, customer, amount, currency, "adjustment", **changes({}, params))


def move_balance(
    unit: Unit, customer: str, amount: int, currency: str, cause: str, **more: Any
) -> Record:
    """Add *amount* to a customer's balance and keep the entry; the event is the customer's."""
    old = unit.get("customers", customer)
    if old.get("currency") not in (None, currency):
        raise refuse(f"The customer's currency is {old['currency']}.", param="currency")
    ending = old.get("balance", 0) + amount
    unit.change("customers", old, balance=ending, currency=currency)
    entry = {"customer": customer, "amount": amount, "currency": currency, "type": cause}
    return unit.create("balance_transactions", entry | {"ending_balance": ending} | more)


def attach(unit: Unit, params: Params, method: str) -> Record:
    """Attach a test card (or a method detached before) to a customer."""
    customer = unit.get("customers", required(params, "customer"), "customer")["id"]
    if method in TEST_CARDS:
        record = unit.create("payment_methods", test_card(method) | {"customer": customer})
    else:
        old = unit.get("payment_methods", method)
        record = unit.put("payment_methods", {**old, "customer": customer})
    unit.tell("payment_method.attached", "payment_methods", record)
    return record


def detach(unit: Unit, _: Params, method: str) -> Record:
    """Detach a payment method; who had it is only in the event's previous_attributes."""
    old = unit.get("payment_methods", method)
    new = unit.put("payment_methods", {**old, "customer": None})
    unit.tell("payment_method.detached", "payment_methods", new, old)
    owner = unit.find("customers", old["customer"]) or {}
    if default_card(owner) == method:
        gone = owner["invoice_settings"] | {"default_payment_method": None}
        unit.change("customers", owner, invoice_settings=gone)
    return new


def default_card(customer: Record) -> str | None:
    """Return the id of the payment method that a customer's invoices are charged to."""
    found: str | None = customer.get("invoice_settings", {}).get("default_payment_method")
    return found


def test_card(name: str) -> Record:
    """Return one of Stripe's test cards."""
    brand, last4, chargeable = TEST_CARDS[name]
    card: Record = {"brand": brand, "display_brand": brand, "last4": last4, "country": "US"}
    card |= {"exp_month": 12, "exp_year": 2034, "funding": "credit", "checks": {}}
    return {"card": card | {"networks": {"available": [brand]}}, "declines": not chargeable}


def create_session(unit: Unit, params: Params) -> Record:
    """Make a short-lived link to the customer's portal page."""
    customer = unit.get("customers", required(params, "customer"), "customer")["id"]
    if flow := params.pop("flow_data", None):
        if flow["type"] not in ("payment_method_update", "customer_update"):
            raise unsimulated(f"the portal flow {flow['type']}")
        flow = {"after_completion": {"type": "portal_homepage"}, **flow}
    secret = unit.account.new_id("test_")
    session = {"customer": customer, "flow": flow, "expires": unit.now + PORTAL_SECONDS}
    session |= {"bearer": secret, "url": f"{unit.account.base_url}/p/session/{secret}"}
    return unit.create("sessions", params | session)


def create_price(unit: Unit, params: Params, at: str = "") -> Record:
    """Create a one-time price and, with ``product_data``, its product; *at* is where, for errors."""
    amounts = [params.pop(k, None) for k in ("unit_amount", "unit_amount_decimal")]
    given = [str(amount) for amount in amounts if amount is not None]
    if len(given) != 1 or given[0].startswith("-"):
        message = "Give one of unit_amount and unit_amount_decimal, of 0 at least."
        raise refuse(message, param=at or "unit_amount")
    if made := params.pop("product_data", None):
        product = unit.create("products", changes({}, made) | {"updated": unit.now})
    else:
        product = unit.get("products", required(params, "product"), "product")
    _take_lookup_key(unit, params)
    price = {"product": product["id"], "unit_amount_decimal": given[0]}
    return unit.create(
        "prices", changes({}, params) | price | {"currency": params["currency"].lower()}
    )


def update_price(unit: Unit, params: Params, price: str) -> Record:
    """Change a price's name, key, metadata, or whether it may still be used; never its amount."""
    _take_lookup_key(unit, params, price)
    old = unit.get("prices", price)
    return unit.change("prices", old, **changes(old, params))


def required(params: Params, name: str) -> str:
    """Return a parameter that only this double demands; Stripe's 400 without it."""
    if not params.get(name):
        raise refuse(f"Missing required param: {name}.", code="parameter_missing", param=name)
    return str(params[name])


def _take_lookup_key(unit: Unit, params: Params, price: str = "") -> None:
    key, transfer = params.get("lookup_key"), params.pop("transfer_lookup_key", None)
    for holder in list(unit.account.rows["prices"].values()) if key else ():
        if holder.get("lookup_key") == key and holder["id"] != price:
            if not transfer:
                message = f"A price (`{holder['id']}`) already uses that lookup key."
                raise refuse(message, code="resource_already_exists", param="lookup_key")
            unit.change("prices", holder, lookup_key=None)
