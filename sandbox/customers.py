"""Customers with their balance, cards and portal links."""

from collections.abc import Mapping
from typing import Any, Final

from sandbox.account import Account, Record
from sandbox.errors import bad_request, not_simulated
from sandbox.params import Params

PORTAL_SECONDS: Final = 300
# Test card → brand, last four digits, and what becomes of a charge (empty: it succeeds).
TEST_CARDS: Final = {
    "pm_card_visa": ("visa", "4242", ""),
    "pm_card_mastercard": ("mastercard", "4444", ""),
    "pm_card_chargeCustomerFail": ("visa", "0341", "declined"),
    "pm_card_authenticationRequired": ("visa", "3184", "action_required"),
}


def get_required(account: Account, params: Params, noun: str) -> Record:
    """Return the customer or product that *params* names; the SDK's types do not require one."""
    if not params.get(noun):
        raise bad_request(f"Missing required param: {noun}.", code="parameter_missing", param=noun)
    return account.get(f"{noun}s", params[noun], noun)


def add_to_balance(account: Account, bill: Record, amount: int, cause: str, **more: Any) -> Record:
    """Add *amount*, negative in the customer's favour, to the balance of a bill's customer.

    Records a balance transaction and emits ``customer.updated``.
    """
    old, currency = account.get("customers", bill["customer"]), bill["currency"]
    if old.get("currency") not in (None, currency):
        raise bad_request(f"The customer's currency is {old['currency']}.", param="currency")
    ending = old.get("balance", 0) + amount
    account.change("customers", old, {"balance": ending, "currency": currency})
    entry = {"customer": old["id"], "amount": amount, "currency": currency, "type": cause}
    return account.create("balance_transactions", entry | {"ending_balance": ending} | more)


def card_for(account: Account, bill: Record, named: str | None = None) -> Record | None:
    """Return the *named* card, a test card or one of the customer's, or else the default card."""
    owner = account.rows["customers"].get(bill["customer"], {})
    method = named or bill.get("default_payment_method") or _default_card(owner)
    if method is None or method in TEST_CARDS:
        return _test_card(method) if method else None
    card = account.get("payment_methods", method, "payment_method")
    if card.get("customer") != bill["customer"]:
        raise bad_request(
            "The payment method does not belong to this customer.", param="payment_method"
        )
    return card


def _default_card(customer: Record) -> str | None:
    found: str | None = customer.get("invoice_settings", {}).get("default_payment_method")
    return found


def _test_card(name: str) -> Record:
    brand, last4, failure = TEST_CARDS[name]
    card: Record = {"brand": brand, "display_brand": brand, "last4": last4, "country": "US"}
    card |= {"exp_month": 12, "exp_year": 2034, "funding": "credit", "checks": {}}
    return {"card": card | {"networks": {"available": [brand]}}, "fails": failure}


def _create(account: Account, params: Params) -> Record:
    balance, card = params.pop("balance", None), params.pop("payment_method", None)
    customer = account.create("customers", params)
    if balance:
        add_to_balance(account, {"customer": customer["id"], "currency": "usd"}, balance, "initial")
    if card:
        _attach(account, {"customer": customer["id"]}, card)
    return customer


def _update(account: Account, params: Params, customer: str) -> Record:
    """Change a customer; a new balance becomes an adjustment by the difference."""
    old, balance = account.get("customers", customer), params.pop("balance", None)
    new = account.change("customers", old, params)
    if balance is not None and (step := balance - old.get("balance", 0)):
        bill = {"customer": customer, "currency": old.get("currency") or "usd"}
        add_to_balance(account, bill, step, "adjustment")
    return new


def _delete(account: Account, _: Params, customer: str) -> Record:
    """Delete a customer; a tombstone and the invoices stay (for drafts a guess)."""
    account.remove("customers", account.get("customers", customer))
    return account.put("customers", {"id": customer, "deleted": True})


def _adjust_balance(account: Account, params: Params, customer: str) -> Record:
    amount, currency = params.pop("amount"), params.pop("currency").lower()
    bill = {"customer": customer, "currency": currency}
    return add_to_balance(account, bill, amount, "adjustment", **params)


def _attach(account: Account, params: Params, method: str) -> Record:
    """Attach a test card, or a method detached before."""
    owner = {"customer": get_required(account, params, "customer")["id"]}
    if method in TEST_CARDS:
        record = account.create("payment_methods", _test_card(method) | owner)
    else:
        record = account.put("payment_methods", account.get("payment_methods", method) | owner)
    account.emit("payment_method.attached", "payment_methods", record)
    return record


def _detach(account: Account, _: Params, method: str) -> Record:
    """Detach a payment method; its former customer is only in the event's previous_attributes."""
    old = account.get("payment_methods", method)
    new = account.put("payment_methods", {**old, "customer": None})
    account.emit("payment_method.detached", "payment_methods", new, old)
    owner = account.rows["customers"].get(old["customer"], {})
    if _default_card(owner) == method:
        account.change("customers", owner, {"invoice_settings": {"default_payment_method": None}})
    return new


def _create_session(account: Account, params: Params) -> Record:
    customer = get_required(account, params, "customer")["id"]
    if flow := params.pop("flow_data", None):
        if flow["type"] not in ("payment_method_update", "customer_update"):
            raise not_simulated(f"the portal flow {flow['type']}")
        flow = {"after_completion": {"type": "portal_homepage"}, **flow}
    secret, expires = account.new_id("test_"), account.now + PORTAL_SECONDS
    link = {"bearer": secret, "url": f"{account.base_url}/p/session/{secret}", "expires": expires}
    return account.create("sessions", params | {"customer": customer, "flow": flow} | link)


ACTIONS: Final[Mapping[str, Any]] = {
    "POST /v1/customers": _create,
    "POST /v1/customers/*": _update,
    "DELETE /v1/customers/*": _delete,
    "POST /v1/customers/*/balance_transactions": _adjust_balance,
    "POST /v1/payment_methods/*/attach": _attach,
    "POST /v1/payment_methods/*/detach": _detach,
    "POST /v1/billing_portal/sessions": _create_session,
}
