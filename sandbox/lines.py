"""Invoice items, which become the lines of an invoice.

A draft stores its items under "held", in its own order, so that its events show them as they were.
Each item is rounded on its own, and a bulk call is applied completely or not at all.
"""

from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Context, Decimal
from functools import partial
from typing import Any, Final

from sandbox.account import Account, Record
from sandbox.customers import get_required
from sandbox.errors import bad_request, not_found
from sandbox.params import Params
from sandbox.prices import billed_quantity, create_inline_price, in_currency, require_billable
from sandbox.totals import require_taxable

MAX_LINES: Final = 250
_EXACT: Final = Context(prec=80)
_COPIED: Final = ("description", "discountable", "metadata", "period")
_QUANTITIES: Final = ("quantity", "quantity_decimal")
# The unit amount's names in lines and in the items of a preview.
_UNITS: Final = ("unit_amount", "unit_amount_decimal")
_PRICES: Final = ("amount", "price", "price_data", "pricing", *_UNITS)


def line_amount(quantity_decimal: str, unit_amount_decimal: str) -> int:
    """Round quantity times unit amount to the minor unit, halves away from zero (a guess)."""
    exact = _EXACT.multiply(Decimal(quantity_decimal), Decimal(unit_amount_decimal))
    return int(exact.quantize(Decimal(1), ROUND_HALF_UP, _EXACT))


def get_editable(account: Account, invoice: str, param: str | None = None) -> Record:
    """Return a draft; StripeError 400 invoice_not_editable for anything later."""
    record = account.get("invoices", invoice, param)
    if record["status"] != "draft":
        raise bad_request("This invoice is no longer editable", code="invoice_not_editable")
    return record


def claim_pending(account: Account, draft: Record) -> list[Record]:
    """Assign the customer's pending items in the draft's currency to it, newest first."""
    items = account.owned_by("invoiceitems", draft["customer"]).values()
    mine = [i for i in items if not i["invoice"] and i["currency"] == draft["currency"]]
    return [
        account.change(
            "invoiceitems", item, {"invoice": draft["id"], "line": account.new_id("il_1")}
        )
        for item in mine[: -MAX_LINES - 1 : -1]
    ]


def change_lines(
    verb: str, account: Account, params: Params, invoice: str, param: str = "lines"
) -> Record:
    """Add, update or remove lines of a draft, and merge the call's ``invoice_metadata`` into it."""
    draft = get_editable(account, invoice)
    lines = {item["line"]: item for item in draft["held"]}
    for n, sent in enumerate(params["lines"]):
        at = f"{param}[{n}]"
        if verb == "add":
            item = _new_item(account, draft, draft["id"], sent, at)
        elif sent["id"] not in lines:
            raise not_found("line item", sent["id"], f"{at}[id]")
        elif verb == "update":
            old = lines[sent["id"]]
            item = account.change("invoiceitems", old, _item_changes(account, old, sent, at))
        elif sent["behavior"] == "unassign":
            account.change("invoiceitems", lines.pop(sent["id"]), {"invoice": None})
            continue
        else:
            account.remove("invoiceitems", lines.pop(sent["id"]))
            continue
        lines[item["line"]] = item
    if max(len(lines), len(params["lines"])) > MAX_LINES:
        raise bad_request(f"An invoice has at most {MAX_LINES} items.", param="lines")
    metadata = {"metadata": params["invoice_metadata"]} if "invoice_metadata" in params else {}
    require_taxable(account, draft | {"held": list(lines.values())})
    return account.change("invoices", draft, {"held": list(lines.values())} | metadata)


def _new_item(
    account: Account, owner: Record, invoice: str | None, sent: Params, at: str
) -> Record:
    period = {"start": account.now, "end": account.now}
    item = {"customer": owner["customer"], "currency": owner["currency"], "invoice": invoice}
    item |= {"line": account.new_id("il_1"), "period": period}
    return account.create(
        "invoiceitems", item | _item_changes(account, item, {"quantity": None} | sent, at)
    )


def _item_changes(account: Account, item: Record, sent: Params, at: str) -> Record:
    """Return the changes that *sent* makes to an item; a new quantity alone keeps the price (a guess)."""
    edits: Record = {name: sent[name] for name in _COPIED if name in sent}
    edits["period"] = item["period"] | (sent.get("period") or {})
    if edits["period"]["end"] < edits["period"]["start"]:
        raise bad_request("The period's end is before its start.", param="period")
    if not sent.keys() & {*_QUANTITIES, *_PRICES}:
        return edits
    edits |= _pricing_changes(account, item, sent, at)
    if (
        (details := edits["price_details"])
        and not edits.get("description")
        and "amount" not in item
    ):
        edits["description"] = account.rows["products"].get(details["product"], {}).get("name")
    return edits


def _pricing_changes(account: Account, item: Record, sent: Params, at: str) -> Record:
    prices = [name for name in _PRICES if sent.get(name) is not None]
    quantities = [str(sent[name]) for name in _QUANTITIES if sent.get(name) is not None]
    if len(prices) > 1 or len(quantities) > 1 or ("amount" in prices and quantities):
        raise bad_request("You may give an amount, or one price and one quantity.", param=at)
    if "amount" in prices:
        plain = {"unit_amount_decimal": None, "price_details": None}
        return plain | {"amount": sent["amount"], "quantity_decimal": "1"}
    quantity = quantities[0] if quantities else item.get("quantity_decimal", "1")
    if quantity.startswith("-"):
        raise bad_request("Invalid quantity: must be at least 0.", param=at)
    unit, details = item.get("unit_amount_decimal") or item.get("amount"), item.get("price_details")
    if prices and prices[0] in _UNITS:
        unit, details = sent[prices[0]], None
    elif prices:
        price = _price(account, item, sent, at)
        unit = price["unit_amount_decimal"]
        details = {"price": price["id"], "product": price["product"]}
    elif unit is None:
        raise bad_request("Give one of amount, pricing and price_data.", param=at)
    billed = billed_quantity(account, quantity, details and details["price"])
    priced = {"quantity_decimal": quantity, "amount": line_amount(billed, str(unit))}
    return priced | {"unit_amount_decimal": str(unit), "price_details": details}


def _price(account: Account, item: Record, sent: Params, at: str) -> Record:
    if sent.get("price_data"):
        price = create_inline_price(account, sent["price_data"], f"{at}[price_data]")
    else:
        name = sent.get("price") or sent["pricing"].get("price") or ""
        price = account.get("prices", name, f"{at}[pricing][price]")
        require_billable(account, price, at)
    return in_currency(price, item["currency"], at)


def _create_item(account: Account, params: Params) -> Record:
    """Create an invoice item, on a draft or pending for the customer's next one."""
    if params.get("invoice"):
        draft = get_editable(account, params["invoice"], "invoice")
        made: Record = change_lines("add", account, {"lines": [params]}, draft["id"])["held"][-1]
        return made
    customer = get_required(account, params, "customer")
    currency = params.get("currency") or customer.get("currency") or "usd"
    owner = {"customer": customer["id"], "currency": currency}
    return _new_item(account, owner, None, params, "amount")


def _change_item(verb: str, account: Account, params: Params, item: str) -> Record:
    """Update or remove an invoice item that is not on a finalized invoice, and its line."""
    old = account.get("invoiceitems", item)
    if old["invoice"]:
        sent = {"behavior": "delete", **params, "id": old["line"]}
        change_lines(verb, account, {"lines": [sent]}, old["invoice"])
    elif verb == "update":
        account.change("invoiceitems", old, _item_changes(account, old, params, "amount"))
    else:
        account.remove("invoiceitems", old)
    return account.rows["invoiceitems"].get(item) or {"id": item, "deleted": True}


ACTIONS: Final[Mapping[str, Any]] = {
    "POST /v1/invoices/*/add_lines": partial(change_lines, "add"),
    "POST /v1/invoices/*/update_lines": partial(change_lines, "update"),
    "POST /v1/invoices/*/remove_lines": partial(change_lines, "remove"),
    "POST /v1/invoiceitems": _create_item,
    "POST /v1/invoiceitems/*": partial(_change_item, "update"),
    "DELETE /v1/invoiceitems/*": partial(_change_item, "remove"),
}
