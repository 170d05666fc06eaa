"""Invoice items: the records behind lines, or waiting for the customer's next invoice."""

from sandbox.account import Unit
from sandbox.defaults import Json
from sandbox.errors import missing
from sandbox.forms import Params, required
from sandbox.lines import (
    added,
    editable,
    edited,
    item_of,
    new_line,
    remove_lines,
    saved,
    update_lines,
)
from sandbox.lists import page_of
from sandbox.shapes import shape
from sandbox.state import Record


def create(unit: Unit, params: Params) -> Json:
    """Create an invoice item, on a draft or pending for the customer's next one."""
    if invoice := params.get("invoice"):
        draft = editable(unit, invoice, "invoice")
        line = added(unit, draft, params, "")
        saved(unit, draft, [*draft["_lines"], line], {})
        return shape(unit, "invoiceitems", item_of(draft, line))
    customer = unit.get("customers", required(params, "customer"), "customer")
    currency = params.get("currency") or customer.get("currency") or "usd"
    line = new_line(unit, params, currency, "")
    owner = {"customer": customer["id"], "currency": currency}
    item = unit.new("invoiceitems", {**line, "id": line["item"], **owner})
    unit.emit("invoiceitem.created", "invoiceitems", item)
    return shape(unit, "invoiceitems", item)


def retrieve(unit: Unit, _params: Params, item: str) -> Json:
    """Return an invoice item, wherever it is."""
    pending = unit.find("invoiceitems", item)
    if pending is not None:
        return shape(unit, "invoiceitems", pending)
    draft, line = _home(unit, item)
    return shape(unit, "invoiceitems", item_of(draft, line))


def update(unit: Unit, params: Params, item: str) -> Json:
    """Change an invoice item; on a draft its line changes with it."""
    pending = unit.find("invoiceitems", item)
    if pending is not None:
        changed = edited(unit, pending, params, pending["currency"], "")
        return shape(unit, "invoiceitems", unit.put("invoiceitems", changed))
    draft, line = _home(unit, item)
    update_lines(unit, {"lines": [params | {"id": line["id"]}]}, draft["id"])
    return retrieve(unit, params, item)


def delete(unit: Unit, _params: Params, item: str) -> Json:
    """Delete an invoice item that no finalized invoice holds."""
    pending = unit.find("invoiceitems", item)
    if pending is not None:
        unit.drop("invoiceitems", item)
        unit.emit("invoiceitem.deleted", "invoiceitems", pending)
    else:
        draft, line = _home(unit, item)
        remove_lines(unit, {"lines": [{"id": line["id"], "behavior": "delete"}]}, draft["id"])
    return {"id": item, "object": "invoiceitem", "deleted": True}


def list_items(unit: Unit, params: Params) -> Json:
    """List invoice items, newest first: of an invoice, pending ones, or all."""
    state, customer = unit.account.state, params.get("customer")
    invoice = unit.get("invoices", params["invoice"], "invoice") if params.get("invoice") else None
    found: list[Record] = []
    if invoice is None and params.get("pending") is not False:
        found += state.newest_first("invoiceitems", customer)
    if not params.get("pending"):
        holders = [invoice] if invoice else state.newest_first("invoices", customer)
        found += [
            item_of(holder, line) for holder in holders for line in reversed(holder["_lines"])
        ]
    shown = [shape(unit, "invoiceitems", item) for item in found]
    return page_of(shown, params, "/v1/invoiceitems", "invoiceitem")


def _home(unit: Unit, item: str) -> tuple[Record, Record]:
    invoice = unit.find("invoices", unit.account.state.homes.get(item))
    if invoice is None:
        raise missing("invoiceitem", item)
    return invoice, next(line for line in invoice["_lines"] if line["item"] == item)
