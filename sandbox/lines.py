"""Lines of a draft and the invoice items behind them: one record serves as both.

Whatever holds lines keeps them under "held": a draft, or what is pending for a customer and
currency. Each line is rounded on its own, and every bulk call happens whole or not at all.
"""

from decimal import ROUND_HALF_UP, Context, Decimal
from functools import partial
from typing import Final

from sandbox.account import Record, Unit
from sandbox.customers import create_price, required
from sandbox.errors import missing, refuse
from sandbox.forms import Params
from sandbox.resources import changes, merged, page, wanted
from sandbox.sdk import Json
from sandbox.shapes import line_item, shape

MAX_LINES: Final = 250
_EXACT: Final = Context(prec=80)
HOLDERS: Final = ("invoices", "pending")
_QUANTITIES: Final = ("quantity", "quantity_decimal")
_PRICES: Final = ("amount", "price_data", "pricing", "unit_amount_decimal")


def line_amount(quantity_decimal: str, unit_amount_decimal: str) -> int:
    """Round quantity times unit amount to the minor unit, halves away from zero (a guess)."""
    exact = _EXACT.multiply(Decimal(quantity_decimal), Decimal(unit_amount_decimal))
    return int(exact.quantize(Decimal(1), ROUND_HALF_UP, _EXACT))


def change_lines(verb: str, unit: Unit, params: Params, invoice: str) -> Record:
    """Add, update or remove lines of a draft, and merge the call's ``invoice_metadata`` into it."""
    return _changed(unit, editable(unit, invoice), verb, params)


def list_lines(unit: Unit, params: Params, invoice: str) -> Json:
    """List an invoice's lines in the invoice's order."""
    record = unit.get("invoices", invoice)
    lines = {line["id"]: line for line in record["held"]}
    url, ids = f"/v1/invoices/{invoice}/lines", list(reversed(lines))
    return page(url, params, lines, ids, lambda line: line_item(unit, record, line))


def create_item(unit: Unit, params: Params) -> Record:
    """Create an invoice item, on a draft or pending for the customer's next one."""
    if params.get("invoice"):
        holder = editable(unit, params["invoice"], "invoice")
    else:
        customer = unit.get("customers", required(params, "customer"), "customer")
        currency = params.get("currency") or customer.get("currency") or "usd"
        holder = _pending(unit, customer["id"], currency)
    new = _changed(unit, holder, "add", {"lines": [params]})
    return _item(new, new["held"][-1])


def retrieve_item(unit: Unit, _: Params, item: str) -> Record:
    """Return an invoice item, wherever it is."""
    return _item(*_home(unit, item))


def change_item(verb: str, unit: Unit, params: Params, item: str) -> Record:
    """Update or remove an invoice item that no finalized invoice holds, and so its line."""
    holder, line = _home(unit, item)
    if "status" in holder:
        editable(unit, holder["id"])
    sent = {"behavior": "delete", **params, "id": line["id"]}
    _changed(unit, holder, verb, {"lines": [sent]})
    return {"id": item, "deleted": True} if verb == "remove" else retrieve_item(unit, {}, item)


def list_items(unit: Unit, params: Params) -> Json:
    """List invoice items, newest first: of an invoice, of a customer, pending ones, or all."""
    customer = params.get("customer")
    holders = [h for kind in HOLDERS for h in unit.account.of(kind, customer)]
    rows = {line["item"]: _item(holder, line) for holder in holders for line in holder["held"]}
    kept, show = wanted(unit, "invoiceitems", params), partial(shape, unit, "invoiceitems")
    return page("/v1/invoiceitems", params, rows, rows, show, kept)


def claim_pending(unit: Unit, draft: Record) -> list[Record]:
    """Take the customer's pending items in this currency as lines, newest first."""
    pending = _pending(unit, draft["customer"], draft["currency"])
    newest = reversed(pending["held"][-MAX_LINES:])
    return [_claimed(unit, draft, line["item"]) for line in newest]


def editable(unit: Unit, invoice: str, param: str | None = None) -> Record:
    """Return a draft; StripeError 400 invoice_not_editable for anything later."""
    record = unit.get("invoices", invoice, param)
    if record["status"] != "draft":
        raise refuse("This invoice is no longer editable", code="invoice_not_editable")
    return record


def new_line(unit: Unit, holder: Record, sent: Params, at: str) -> Record:
    """Return a new line and item from what was sent; *at* is where, for errors."""
    bare: Record = {"period": {"start": unit.now, "end": unit.now}, "created": unit.now}
    bare |= {"id": unit.account.new_id("il_1"), "item": unit.account.new_id("ii_1")}
    line = _edited(unit, holder, bare, {"quantity": None} | sent, at)
    details = line.get("pricing", {}).get("price_details")
    if details and not line.get("description"):
        line["description"] = (unit.find("products", details["product"]) or {}).get("name")
    unit.tell("invoiceitem.created", "invoiceitems", _item(holder, line))
    return line


def _changed(unit: Unit, holder: Record, verb: str, params: Params) -> Record:
    lines = {line["id"]: line for line in holder["held"]}
    for n, sent in enumerate(params["lines"]):
        at = f"lines[{n}]"
        if verb == "add":
            line = _added(unit, holder, sent, at)
        elif sent["id"] not in lines:
            raise missing("line item", sent["id"], f"{at}[id]")
        elif verb == "update":
            line = _edited(unit, holder, lines[sent["id"]], sent, at)
        else:
            _let_go(unit, holder, lines.pop(sent["id"]), keep=sent["behavior"] == "unassign")
            continue
        lines[line["id"]] = line
    return _saved(unit, holder, list(lines.values()), params)


def _added(unit: Unit, holder: Record, sent: Params, at: str) -> Record:
    if item := sent.get("invoice_item"):
        return _edited(unit, holder, _claimed(unit, holder, item, at), sent, at)
    return new_line(unit, holder, sent, at)


def _let_go(unit: Unit, holder: Record, line: Record, *, keep: bool) -> None:
    if keep:
        pending = _pending(unit, holder["customer"], holder["currency"])
        _saved(unit, pending, [*pending["held"], line], {})
    else:
        unit.tell("invoiceitem.deleted", "invoiceitems", _item(holder, line))


def _edited(unit: Unit, holder: Record, old: Record, sent: Params, at: str) -> Record:
    """Return *old* with what *sent* names changed; a new quantity alone keeps the price (a guess)."""
    named: Params = {
        k: sent[k] for k in ("description", "discountable", "metadata", "period") if k in sent
    }
    new = {**old, **changes(old, named)}
    if new["period"]["end"] < new["period"]["start"]:
        raise refuse("The period's end is before its start.", param="period")
    if sent.keys() & {*_QUANTITIES, *_PRICES}:
        new.pop("pricing", None)
        new |= _priced(unit, sent, holder["currency"], old, at or "amount")
    return new


def _priced(unit: Unit, sent: Params, currency: str, old: Record, at: str) -> Record:
    prices = [name for name in _PRICES if sent.get(name) is not None]
    quantities = [str(sent[name]) for name in _QUANTITIES if sent.get(name) is not None]
    if len(prices) > 1 or len(quantities) > 1 or ("amount" in prices and quantities):
        raise refuse("You may give an amount, or one price and one quantity.", param=at)
    if "amount" in prices:
        return {"amount": sent["amount"], "quantity_decimal": "1"}
    quantity = quantities[0] if quantities else old.get("quantity_decimal", "1")
    if quantity.startswith("-"):
        raise refuse("Invalid quantity: must be at least 0.", param=at)
    pricing = _pricing(unit, sent, currency, old, at)
    amount = line_amount(quantity, pricing["unit_amount_decimal"])
    return {"quantity_decimal": quantity, "amount": amount, "pricing": pricing}


def _pricing(unit: Unit, sent: Params, currency: str, old: Record, at: str) -> Json:
    unit_amount = sent.get("unit_amount_decimal", str(old["amount"]) if "amount" in old else None)
    if sent.get("price_data"):
        price = create_price(unit, sent["price_data"] | {"active": False}, f"{at}[price_data]")
    elif named := (sent.get("pricing") or {}).get("price"):
        price = unit.get("prices", named, f"{at}[pricing][price]")
        if not price.get("active", True):
            raise refuse(f"The price specified is inactive: {named}", param=f"{at}[pricing]")
    elif "pricing" in old and "unit_amount_decimal" not in sent:
        kept: Json = old["pricing"]
        return kept
    elif unit_amount is not None:
        return {"type": "price_details", "unit_amount_decimal": unit_amount}
    else:
        raise refuse("Give one of amount, pricing and price_data.", param=at)
    if price["currency"] != currency:
        raise refuse(f"The price is in {price['currency']}, not in {currency}.", param=at)
    details = {"price": price["id"], "product": price["product"]}
    pricing = {"type": "price_details", "price_details": details}
    return pricing | {"unit_amount_decimal": price["unit_amount_decimal"]}


def _saved(unit: Unit, holder: Record, lines: list[Record], params: Params) -> Record:
    if "status" not in holder:
        return unit.put("pending", {**holder, "held": lines})
    if len(lines) > MAX_LINES or len(params.get("lines", ())) > MAX_LINES:
        raise refuse(f"An invoice has at most {MAX_LINES} items.", param="lines")
    sent = params.get("invoice_metadata", {})
    metadata = merged(holder.get("metadata"), sent)
    return unit.change("invoices", holder, held=lines, metadata=metadata)


def _item(holder: Record, line: Record) -> Record:
    invoice = holder["id"] if "status" in holder else None
    owner = {key: holder[key] for key in ("customer", "currency")}
    return {**line, "id": line["item"], "invoice": invoice, **owner}


def _pending(unit: Unit, customer: str, currency: str) -> Record:
    name = f"{customer}:{currency}"
    new = {"id": name, "customer": customer, "currency": currency, "held": []}
    return unit.find("pending", name) or new


def _claimed(unit: Unit, draft: Record, item: str, at: str = "") -> Record:
    pending = _pending(unit, draft["customer"], draft["currency"])
    line = next((each for each in pending["held"] if each["item"] == item), None)
    if line is None:
        raise missing("invoiceitem", item, f"{at}[invoice_item]")
    _saved(unit, pending, [each for each in pending["held"] if each is not line], {})
    return {**line, "id": unit.account.new_id("il_1")}


def _home(unit: Unit, item: str) -> tuple[Record, Record]:
    for kind in HOLDERS:
        for each in unit.account.rows[kind]:
            holder = unit.find(kind, each) or {"held": ()}
            if line := next((line for line in holder["held"] if line["item"] == item), None):
                return holder, line
    raise missing("invoiceitem", item)
