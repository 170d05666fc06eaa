"""A customer's balance: negative is credit, and every move of it is an entry."""

from typing import Any

from sandbox.account import Unit
from sandbox.defaults import Json
from sandbox.errors import missing, refuse
from sandbox.forms import Params, merged
from sandbox.lists import equals, page
from sandbox.shapes import shape
from sandbox.state import Record


def create(unit: Unit, params: Params, customer: str) -> Json:
    """Move a customer's balance by hand; negative is in the customer's favour."""
    currency = params["currency"].lower()
    entry = move_balance(unit, customer, params["amount"], currency, "adjustment")
    extra: Params = {k: params[k] for k in ("description", "metadata") if k in params}
    return shape(unit, "balance_transactions", unit.put("balance_transactions", {**entry, **extra}))


def list_entries(unit: Unit, params: Params, customer: str) -> Json:
    """List the moves of a customer's balance."""
    unit.get("customers", customer)
    url = f"/v1/customers/{customer}/balance_transactions"
    same = equals(params, "invoice")
    return page(unit, "balance_transactions", params | {"customer": customer}, url, same)


def retrieve(unit: Unit, _params: Params, customer: str, entry: str) -> Json:
    """Return one entry of a customer's balance."""
    return shape(unit, "balance_transactions", _own(unit, customer, entry))


def update(unit: Unit, params: Params, customer: str, entry: str) -> Json:
    """Change an entry's description or metadata."""
    old = _own(unit, customer, entry)
    if "metadata" in params:
        params["metadata"] = merged(old.get("metadata"), params["metadata"])
    return shape(unit, "balance_transactions", unit.put("balance_transactions", {**old, **params}))


def move_balance(
    unit: Unit, customer: str, amount: int, currency: str, kind: str, **cause: Any
) -> Record:
    """Add *amount* to a customer's balance and keep the entry; there is no event but the customer's."""
    old = unit.get("customers", customer)
    if old.get("currency") not in (None, currency):
        raise refuse(f"The customer's currency is {old['currency']}.", param="currency")
    ending = old.get("balance", 0) + amount
    unit.change("customers", old, balance=ending, currency=currency)
    entry = {"customer": customer, "amount": amount, "currency": currency, "type": kind}
    return unit.new("balance_transactions", entry | {"ending_balance": ending} | cause)


def _own(unit: Unit, customer: str, entry: str) -> Record:
    record = unit.get("balance_transactions", entry)
    if record["customer"] != customer:
        raise missing("customer balance transaction", entry)
    return record
