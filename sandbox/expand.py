"""``expand``: ids replaced by the objects they name, four levels deep at most."""

from typing import Any, Final

from sandbox.account import Unit
from sandbox.defaults import Json
from sandbox.errors import refuse
from sandbox.shapes import listed, shape

KINDS: Final = {
    "customer": "customers",
    "invoice": "invoices",
    "price": "prices",
    "product": "products",
    "default_payment_method": "payment_methods",
    "invoice_item": "invoiceitems",
}
MAX_DEPTH: Final = 4


def expand(unit: Unit, body: Json, paths: list[str]) -> Json:
    """Return *body* with each dotted path expanded; StripeError 400 for what cannot be."""
    for path in paths:
        steps = path.split(".")
        if len(steps) > MAX_DEPTH:
            raise refuse(f"You cannot expand more than 4 levels: {path}", param="expand")
        body = _expanded(unit, body, steps, path)
    return body


def _expanded(unit: Unit, node: Any, steps: list[str], path: str) -> Any:
    if isinstance(node, list):
        return [_expanded(unit, each, steps, path) for each in node]
    if node is None or not steps:
        return node
    name, rest = steps[0], steps[1:]
    if not isinstance(node, dict) or (name not in node and name not in ("payments", "total_count")):
        raise refuse(f"This property cannot be expanded ({path}).", param="expand")
    return {**node, name: _expanded(unit, _value(unit, node, name, path, rest), rest, path)}


def _value(unit: Unit, node: Json, name: str, path: str, rest: list[str]) -> Any:
    value = node.get(name)
    if name == "payments" and node.get("object") == "invoice":
        held = unit.account.state.newest_first("invoice_payments", node["customer"])
        made = [shape(unit, "invoice_payments", p) for p in held if p["invoice"] == node["id"]]
        return listed(f"/v1/invoices/{node['id']}/payments", made)
    if name == "total_count" and node.get("object") == "search_result":
        return len(node["data"])
    if isinstance(value, str) and name in KINDS:
        record = unit.find(KINDS[name], value)
        return shape(unit, KINDS[name], record) if record else value
    if isinstance(value, (dict, list)) and rest:
        return value
    if value is None:
        return None
    raise refuse(f"This property cannot be expanded ({path}).", param="expand")
