"""Products and their prices: per unit, by package, tiered, recurring, or chosen by the customer."""

from collections.abc import Mapping
from decimal import ROUND_DOWN, ROUND_UP, Context, Decimal
from typing import Any, Final

from sandbox import resources
from sandbox.account import Account, Record
from sandbox.customers import get_required
from sandbox.errors import bad_request
from sandbox.params import Params
from sandbox.sdk import Json

MAX_LOOKUP_KEYS: Final = 10
_AMOUNTS: Final = ("unit_amount", "unit_amount_decimal")
_ROUNDINGS: Final = {"up": ROUND_UP, "down": ROUND_DOWN}
_EXACT: Final = Context(prec=80)


def create_price(account: Account, params: Params, at: str = "unit_amount") -> Record:
    """Create a price and, with ``product_data``, its product; errors name the parameter *at*."""
    _validate_kind(params, at)
    sent = [str(params.pop(name)) for name in _AMOUNTS if params.get(name) is not None]
    tiers = [_tier(tier) for tier in params.pop("tiers", None) or ()]
    product = _product(account, params)
    transfer_lookup_key(account, params, "")
    price = {"product": product["id"], "unit_amount_decimal": sent[0] if sent else None}
    if tiers:
        price["tiers"] = tiers
    if options := params.pop("currency_options", None):
        price["currency_options"] = {
            currency.lower(): _currency_option(option) for currency, option in options.items()
        }
    if cycle := params.get("recurring"):
        price |= {"type": "recurring"}
        params["recurring"] = {"interval_count": 1, "usage_type": "licensed"} | cycle
    return account.create("prices", params | price | {"currency": params["currency"].lower()})


def create_inline_price(account: Account, params: Params, at: str) -> Record:
    """Create the price of one line: it is never active and in no list."""
    return create_price(account, params | {"active": False, "inline": True}, at)


def require_billable(account: Account, price: Record, at: str) -> None:
    """StripeError 400 if *price* bills no new line of an invoice."""
    product = account.rows["products"].get(price["product"], {})
    message = None
    if not price.get("active", True):
        message = "The price specified is inactive. This field only accepts active prices."
    elif not product.get("active", True):
        message = (
            f"Price `{price['id']}` is not available to be purchased because its product is not"
            " active."
        )
    elif price.get("type") == "recurring":
        message = (
            "The price specified is set to `type=recurring` but this field only accepts prices"
            " with `type=one_time`."
        )
    elif price["unit_amount_decimal"] is None:
        message = "Prices with `custom_unit_amount` are not supported here."
    if message:
        raise bad_request(message, param=f"{at}[pricing]")


def in_currency(price: Record, currency: str, at: str) -> Record:
    """Return *price* with its amount in *currency*; StripeError 400 if it has none."""
    if price["currency"] == currency:
        return price
    option: Record | None = (price.get("currency_options") or {}).get(currency)
    if option is None:
        message = f"The price is in {price['currency']}, not in {currency}."
        raise bad_request(message, param=at)
    return price | option | {"currency": currency}


def billed_quantity(account: Account, quantity: str, price_id: str | None) -> str:
    """Return the number of units, or of packages if the price is by package."""
    price = account.rows["prices"].get(price_id or "", {})
    if not (package := price.get("transform_quantity")):
        return quantity
    packages = _EXACT.divide(Decimal(quantity), Decimal(package["divide_by"]))
    return f"{packages.to_integral_value(_ROUNDINGS[package['round']]):f}"


def transfer_lookup_key(account: Account, params: Params, price: str) -> None:
    """Free the lookup key in *params* for *price*; StripeError 400 unless they transfer it."""
    key, transfer = params.get("lookup_key"), params.pop("transfer_lookup_key", None)
    for row in list(account.rows["prices"].values()):
        if key and row.get("lookup_key") == key and row["id"] != price:
            if not transfer:
                message = f"A price (`{row['id']}`) already uses that lookup key."
                raise bad_request(message, code="resource_already_exists", param="lookup_key")
            account.change("prices", row, {"lookup_key": None})


def _list(account: Account, params: Params) -> Json:
    """List active prices, or inactive ones with ``active=false``."""
    if len(params.get("lookup_keys") or ()) > MAX_LOOKUP_KEYS:
        message = f"You can specify up to {MAX_LOOKUP_KEYS} lookup_keys."
        raise bad_request(message, param="lookup_keys")
    active = True if params.get("active") is None else params["active"]
    return resources.list_objects("prices", account, params | {"active": active})


def _update(account: Account, params: Params, price: str) -> Record:
    """Change a price's nickname, lookup key, metadata or active flag; its amount is immutable."""
    transfer_lookup_key(account, params, price)
    return account.change("prices", account.get("prices", price), params)


def _product(account: Account, params: Params) -> Record:
    made = params.pop("product_data", None)
    if made and params.get("product"):
        message = "You may only specify one of these parameters: product, product_data."
        raise bad_request(message, param="product")
    if made:
        return account.create("products", made | {"updated": account.now})
    return get_required(account, params, "product")


def _validate_kind(params: Params, at: str) -> None:
    """StripeError 400 unless the price is one of per unit, tiered and custom."""
    amounts = [str(params[name]) for name in _AMOUNTS if params.get(name) is not None]
    tiered, cycle = params.get("billing_scheme") == "tiered", params.get("recurring")
    package = params.get("transform_quantity")
    ways = len(amounts) + bool(params.get("custom_unit_amount")) + tiered
    if ways != 1 or (amounts[0:1] and amounts[0].startswith("-")):
        raise bad_request(
            "Give one of unit_amount, unit_amount_decimal and custom_unit_amount, of 0 at least,"
            " or the tiers of a tiered price.",
            param=at,
        )
    if tiered != bool(params.get("tiers")) or tiered != bool(params.get("tiers_mode")):
        raise bad_request("Tiers and tiers_mode go with billing_scheme=tiered.", param="tiers")
    if tiered and not cycle:
        message = "Prices with `type=one_time` are not supported with tiered billing."
        raise bad_request(message, param="interval")
    if package and (tiered or package["divide_by"] < 1):
        message = "A package has at least one unit, and is not combined with tiers."
        raise bad_request(message, param="transform_quantity")
    if cycle and cycle.get("usage_type") == "metered":
        raise bad_request("Metered prices must be backed by meters.", param="recurring[meter]")


def _currency_option(sent: Params) -> Record:
    exact = sent.get("unit_amount_decimal", sent.get("unit_amount"))
    if exact is None:
        raise bad_request("Give the unit amount in each currency.", param="currency_options")
    whole = None if Decimal(exact) % 1 else int(Decimal(exact))
    behavior = sent.get("tax_behavior") or "unspecified"
    amounts = {"unit_amount": whole, "unit_amount_decimal": str(exact)}
    return amounts | {"custom_unit_amount": None, "tax_behavior": behavior}


def _tier(sent: Params) -> Record:
    tier: Record = {"up_to": None if sent["up_to"] == "inf" else sent["up_to"]}
    for name in ("unit_amount", "flat_amount"):
        exact = sent.get(f"{name}_decimal", sent.get(name))
        whole = None if exact is None or Decimal(exact) % 1 else int(Decimal(exact))
        tier |= {name: whole, f"{name}_decimal": None if exact is None else str(exact)}
    return tier


ACTIONS: Final[Mapping[str, Any]] = {
    "GET /v1/prices": _list,
    "POST /v1/prices": create_price,
    "POST /v1/prices/*": _update,
}
