"""Products and prices."""

from typing import Any

from sandbox.account import Unit
from sandbox.defaults import Json
from sandbox.errors import refuse
from sandbox.forms import Params, merged
from sandbox.lists import equals, page
from sandbox.shapes import shape
from sandbox.state import Record


def create_product(unit: Unit, params: Params) -> Json:
    """Create a product; its id may be given."""
    product = _product(unit, params)
    return shape(unit, "products", product)


def update_product(unit: Unit, params: Params, product: str) -> Json:
    """Change a product."""
    old = unit.get("products", product)
    changes = _with_metadata(old, params) | {"updated": unit.now}
    return shape(unit, "products", unit.change("products", old, **changes))


def delete_product(unit: Unit, _params: Params, product: str) -> Json:
    """Delete a product that has no prices."""
    old = unit.get("products", product)
    if any(price["product"] == product for price in unit.account.state.rows["prices"].values()):
        raise refuse("This product cannot be deleted because it has one or more prices.")
    unit.emit("product.deleted", "products", old)
    unit.put("products", {"id": product, "deleted": True})
    return {"id": product, "object": "product", "deleted": True}


def list_products(unit: Unit, params: Params) -> Json:
    """List products."""
    ids = params.get("ids")
    same = equals(params, "shippable", "url")
    return page(
        unit,
        "products",
        params,
        "/v1/products",
        lambda r: same(r) and _active(r, params) and (not ids or r["id"] in ids),
    )


def create_price(unit: Unit, params: Params) -> Json:
    """Create a one-time price; Stripe's prices never change their amount."""
    price = _new_price(unit, params, "")
    return shape(unit, "prices", price)


def update_price(unit: Unit, params: Params, price: str) -> Json:
    """Change a price's name, key, metadata, or whether it may still be used."""
    old = unit.get("prices", price)
    if params.get("lookup_key"):
        _take_lookup_key(unit, params, price)
    changes = {k: v for k, v in _with_metadata(old, params).items() if k != "transfer_lookup_key"}
    return shape(unit, "prices", unit.change("prices", old, **changes))


def list_prices(unit: Unit, params: Params) -> Json:
    """List prices, by lookup key among others."""
    keys = params.get("lookup_keys")
    same = equals(params, "product", "currency")
    recurring = params.get("type") == "recurring" or params.get("recurring")
    return page(
        unit,
        "prices",
        params,
        "/v1/prices",
        lambda r: (
            same(r)
            and not recurring
            and _active(r, params)
            and (not keys or r.get("lookup_key") in keys)
        ),
    )


def inline_price(unit: Unit, data: Params, param: str) -> Record:
    """Create the price that ``price_data`` describes; it is inactive, as Stripe makes it."""
    return _new_price(unit, data | {"active": False}, f"{param}[price_data]")


def _new_price(unit: Unit, params: Params, param: str) -> Record:
    given = [k for k in ("unit_amount", "unit_amount_decimal") if params.get(k) is not None]
    if len(given) != 1:
        raise refuse(
            "Give one of unit_amount and unit_amount_decimal.", param=param or "unit_amount"
        )
    amount = str(params[given[0]])
    if amount.startswith("-"):
        raise refuse("Invalid non-negative amount.", param=given[0])
    record: dict[str, Any] = {
        "currency": params["currency"].lower(),
        "product": _product_of(unit, params, param),
        "unit_amount_decimal": amount,
    }
    for key in ("id", "active", "nickname", "tax_behavior", "lookup_key"):
        if params.get(key) is not None:
            record[key] = params[key]
    if params.get("metadata"):
        record["metadata"] = merged(None, params["metadata"])
    price = unit.new("prices", record)
    if params.get("lookup_key"):
        _take_lookup_key(unit, params, price["id"])
    unit.emit("price.created", "prices", price)
    return price


def _product_of(unit: Unit, params: Params, param: str) -> str:
    if params.get("product_data"):
        return str(_product(unit, params["product_data"])["id"])
    if not params.get("product"):
        raise refuse("Give one of product and product_data.", param=param or "product")
    return str(unit.get("products", params["product"], "product")["id"])


def _product(unit: Unit, params: Params) -> Record:
    product = unit.new("products", _with_metadata({}, params) | {"updated": unit.now})
    unit.emit("product.created", "products", product)
    return product


def _take_lookup_key(unit: Unit, params: Params, price: str) -> None:
    holder = unit.find("prices", unit.account.state.lookups.get(params["lookup_key"]))
    if holder is None or holder["id"] == price or holder.get("lookup_key") != params["lookup_key"]:
        return
    if not params.get("transfer_lookup_key"):
        raise refuse(
            f"A price (`{holder['id']}`) already uses that lookup key.",
            code="resource_already_exists",
            param="lookup_key",
        )
    unit.change("prices", holder, lookup_key=None)


def _with_metadata(old: Record, params: Params) -> Params:
    if "metadata" not in params:
        return params
    return params | {"metadata": merged(old.get("metadata"), params["metadata"])}


def _active(record: Record, params: Params) -> bool:
    return params.get("active") in (None, record.get("active", True))
