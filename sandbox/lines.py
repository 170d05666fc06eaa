"""Lines of a draft and the invoice items behind them: one record serves as both.

Each line is rounded on its own, and every bulk call happens whole or not at all.
"""

from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any, Final

from sandbox.account import Unit
from sandbox.catalogue import inline_price
from sandbox.defaults import Json
from sandbox.errors import missing, refuse
from sandbox.forms import Params, merged
from sandbox.lists import page_of
from sandbox.shapes import line_item, shape
from sandbox.state import Record

MAX_LINES: Final = 250
_EXACT: Final = Context(prec=80)


def line_amount(quantity_decimal: str, unit_amount_decimal: str) -> int:
    """Round quantity times unit amount to the minor unit, halves away from zero (a guess)."""
    exact = _EXACT.multiply(Decimal(quantity_decimal), Decimal(unit_amount_decimal))
    return int(exact.quantize(Decimal(1), ROUND_HALF_UP, _EXACT))


def add_lines(unit: Unit, params: Params, invoice: str) -> Json:
    """Add up to 250 lines to a draft."""
    draft = editable(unit, invoice)
    sent = _sent(params)
    new = [added(unit, draft, line, f"lines[{n}]") for n, line in enumerate(sent)]
    return saved(unit, draft, [*draft["_lines"], *new], params)


def update_lines(unit: Unit, params: Params, invoice: str) -> Json:
    """Change lines of a draft; what is not named stays, ids stay."""
    draft = editable(unit, invoice)
    lines = {line["id"]: line for line in draft["_lines"]}
    for n, sent in enumerate(_sent(params)):
        old = _line(lines, sent["id"], f"lines[{n}][id]")
        lines[old["id"]] = edited(unit, old, sent, draft["currency"], f"lines[{n}]")
    return saved(unit, draft, list(lines.values()), params)


def remove_lines(unit: Unit, params: Params, invoice: str) -> Json:
    """Delete lines of a draft, or give them back to the customer's pending items."""
    draft = editable(unit, invoice)
    lines = {line["id"]: line for line in draft["_lines"]}
    for n, sent in enumerate(_sent(params)):
        if sent["behavior"] not in ("delete", "unassign"):
            raise refuse("Invalid behavior: must be one of delete or unassign", param=f"lines[{n}]")
        line = _line(lines, sent["id"], f"lines[{n}][id]")
        del lines[line["id"]]
        _released(unit, draft, line, keep=sent["behavior"] == "unassign")
    return saved(unit, draft, list(lines.values()), params)


def update_line(unit: Unit, params: Params, invoice: str, line: str) -> Json:
    """Change one line of a draft; the answer is the line."""
    draft = editable(unit, invoice)
    update_lines(unit, {"lines": [params | {"id": line}]}, invoice)
    fresh = unit.get("invoices", draft["id"])
    return line_item(fresh, _line({each["id"]: each for each in fresh["_lines"]}, line, "id"))


def list_lines(unit: Unit, params: Params, invoice: str) -> Json:
    """List an invoice's lines in the invoice's order."""
    record = unit.get("invoices", invoice)
    lines = [line_item(record, line) for line in record["_lines"]]
    return page_of(lines, params, f"/v1/invoices/{invoice}/lines", "line item")


def claim_pending(unit: Unit, invoice: Record) -> list[Record]:
    """Take the customer's pending items in this currency as lines, newest first."""
    pending = unit.account.state.newest_first("invoiceitems", invoice["customer"])
    items = [item for item in pending if item["currency"] == invoice["currency"]][:MAX_LINES]
    return [_claimed(unit, item) for item in items]


def editable(unit: Unit, invoice: str, param: str | None = None) -> Record:
    """Return a draft; StripeError 400 invoice_not_editable for anything later."""
    record = unit.get("invoices", invoice, param)
    if record["status"] != "draft":
        raise refuse("This invoice is no longer editable", code="invoice_not_editable")
    return record


def item_of(invoice: Record, line: Record) -> Record:
    """Return the invoice item behind a line."""
    owner = {key: invoice[key] for key in ("customer", "currency")}
    return {**line, "id": line["item"], "invoice": invoice["id"], **owner}


def edited(unit: Unit, old: Record, sent: Params, currency: str, param: str) -> Record:
    """Return *old* with what *sent* names changed; a new quantity alone keeps the price (a guess)."""
    new = {**old, **_described(sent)}
    if "metadata" in sent:
        new["metadata"] = merged(old.get("metadata"), sent["metadata"])
    money = {
        "amount",
        "pricing",
        "price_data",
        "quantity",
        "quantity_decimal",
        "unit_amount_decimal",
    }
    if money & sent.keys():
        for key in ("unit", "price", "product"):
            new.pop(key, None)
        new |= _priced(unit, sent, currency, old, param)
    return new


def new_line(unit: Unit, sent: Params, currency: str, param: str) -> Record:
    """Return a new line and item from what was sent; *param* is where, for errors."""
    line = {
        "id": unit.account.new_id("il_1"),
        "item": unit.account.new_id("ii_1"),
        "created": unit.now,
        "period": {"start": unit.now, "end": unit.now},
        **_described(sent),
        **_priced(unit, sent, currency, {}, param),
    }
    if sent.get("metadata"):
        line["metadata"] = merged(None, sent["metadata"])
    if "description" not in line and (product := unit.find("products", line.get("product"))):
        line["description"] = product["name"]
    return line


def added(unit: Unit, draft: Record, sent: Params, param: str) -> Record:
    """Return the line that *sent* adds to *draft*: a new one, or a pending item's."""
    if sent.get("invoice_item"):
        item = unit.get("invoiceitems", sent["invoice_item"], f"{param}[invoice_item]")
        if item["customer"] != draft["customer"] or item["currency"] != draft["currency"]:
            raise refuse("The item is not for this customer and currency.", param=param)
        return edited(unit, _claimed(unit, item), sent, draft["currency"], param)
    line = new_line(unit, sent, draft["currency"], param)
    unit.emit("invoiceitem.created", "invoiceitems", item_of(draft, line))
    return line


def _described(sent: Params) -> Record:
    given: Record = {
        key: sent[key] for key in ("description", "discountable", "period") if key in sent
    }
    period = given.get("period")
    if period is not None and period["end"] < period["start"]:
        raise refuse("The period's end is before its start.", param="period")
    return given


def _priced(unit: Unit, sent: Params, currency: str, old: Record, param: str) -> Record:
    forms = {"amount", "pricing", "price_data", "unit_amount_decimal"} & sent.keys()
    quantities = {"quantity", "quantity_decimal"} & sent.keys()
    if len(forms) > 1 or len(quantities) > 1 or ("amount" in forms and quantities):
        names = ", ".join(sorted(forms | quantities))
        raise refuse(f"You may only specify one of these: {names}.", param=param)
    if "amount" in forms and sent["amount"] is not None:
        return {"amount": sent["amount"], "quantity_decimal": "1"}
    quantity = str(next((sent[key] for key in quantities), old.get("quantity_decimal", "1")))
    if quantity.startswith("-") or quantity == "None":
        raise refuse("Invalid quantity: must be at least 0.", param=param)
    price = _price(unit, sent, currency, old, param)
    return {
        "quantity_decimal": quantity,
        "amount": line_amount(quantity, price["unit"]),
        **price,
    }


def _price(unit: Unit, sent: Params, currency: str, old: Record, param: str) -> Record:
    if sent.get("unit_amount_decimal") is not None:
        return {"unit": sent["unit_amount_decimal"]}
    if sent.get("price_data"):
        price = inline_price(unit, sent["price_data"], param)
    elif (sent.get("pricing") or {}).get("price"):
        price = unit.get("prices", sent["pricing"]["price"], f"{param}[pricing][price]".lstrip("["))
        if not price.get("active", True):
            raise refuse(
                f"The price specified is inactive: {price['id']}", param=f"{param}[pricing]"
            )
    elif "unit" in old:
        return {key: old[key] for key in ("unit", "price", "product") if key in old}
    elif old:
        return {"unit": str(old["amount"])}
    else:
        raise refuse("You must give one of amount, pricing or price_data.", param=param or "amount")
    if price["currency"] != currency:
        raise refuse(
            f"The price is in {price['currency']}, the invoice in {currency}.", param=param
        )
    return {"unit": price["unit_amount_decimal"], "price": price["id"], "product": price["product"]}


def saved(unit: Unit, draft: Record, lines: list[Record], params: Params) -> Json:
    """Put *draft* with these lines and the call's ``invoice_metadata``."""
    if len(lines) > MAX_LINES:
        raise refuse(f"An invoice has at most {MAX_LINES} items.", param="lines")
    changes: Params = {"_lines": tuple(lines)}
    if "invoice_metadata" in params:
        changes["metadata"] = merged(draft.get("metadata"), params["invoice_metadata"])
    return shape(unit, "invoices", unit.change("invoices", draft, **changes))


def _sent(params: Params) -> list[Any]:
    sent: list[Any] = params["lines"]
    if not 1 <= len(sent) <= MAX_LINES:
        raise refuse(f"Give between 1 and {MAX_LINES} lines.", param="lines")
    return sent


def _line(lines: dict[str, Record], line: str, param: str) -> Record:
    if line not in lines:
        raise missing("line item", line, param, 400)
    return lines[line]


def _released(unit: Unit, draft: Record, line: Record, *, keep: bool) -> None:
    item = item_of(draft, line)
    if keep:
        unit.put("invoiceitems", {**item, "invoice": None})
    else:
        unit.emit("invoiceitem.deleted", "invoiceitems", item)


def _claimed(unit: Unit, item: Record) -> Record:
    unit.drop("invoiceitems", item["id"])
    kept = {key: value for key, value in item.items() if key not in ("customer", "currency", "_n")}
    kept.pop("invoice", None)
    return {**kept, "id": unit.account.new_id("il_1"), "item": item["id"]}
