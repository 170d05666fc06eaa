"""The prices and products of an account, and the person who changes them."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from random import Random
from typing import Any

from tests.simulation.wire import Refusal, copied

Record = dict[str, Any]
# Amounts divide without a remainder, so that an amount that a person types is some quantity exactly.
UNITS = ("0.5", "25", "4", "12.5", "0.02", "1.25", "8", "0.0625")
SKUS = {"a": "usd", "b": "usd", "c": "usd", "e": "eur", "f": "eur"}


class Catalog:
    """Prices by id; one active price of a SKU has its lookup key."""

    def __init__(self, emit: Callable[[str, Mapping[str, Any]], None]) -> None:
        self._emit = emit
        self.prices: dict[str, Record] = {}
        self.products: dict[str, Record] = {}
        self.units: dict[str, Decimal] = {}

    def fill(self, rng: Random) -> None:
        """Create a price for each SKU."""
        for sku, currency in SKUS.items():
            self.add(sku, currency, rng.choice(UNITS))

    def add(self, sku: str, currency: str, unit: str, **figures: Any) -> Record:
        """Create a price with a product of its own; it takes the lookup key over."""
        name = f"price_{len(self.prices):04}_{sku}"
        product = {"id": f"prod_{name}", "object": "product", "name": sku, "active": True}
        for other in self.prices.values():
            if other["lookup_key"] == sku:
                other["lookup_key"] = None
        price = {
            "id": name,
            "object": "price",
            "lookup_key": sku,
            "active": True,
            "currency": currency,
            "unit_amount_decimal": unit,
            "type": "one_time",
            "billing_scheme": "per_unit",
            "transform_quantity": None,
            "custom_unit_amount": None,
            "product": product["id"],
            **figures,
        }
        self.products[f"prod_{name}"] = product
        self.prices[name] = price
        self.units[name] = Decimal(unit)
        self._emit("price.created", price)
        return price

    def sold(self, sku: str) -> Record | None:
        """The price at which usage of *sku* counts now; None if it is refused."""
        for price in self.prices.values():
            if price["lookup_key"] == sku and price["active"]:
                return price if self._is_usable(price) else None
        return None

    def archived(self) -> set[str]:
        """The prices that bill no new line."""
        return {price["id"] for price in self.prices.values() if not self._is_active(price)}

    def get(self, price: str) -> Record:
        """One price, with its product."""
        if price not in self.prices:
            raise Refusal(404, "resource_missing")
        found = copied(self.prices[price])
        return {**found, "product": copied(self.products[found["product"]])}

    def list(self, params: Mapping[str, Any]) -> Record:
        """The active prices, newest first, or the archived ones if they are asked for."""
        active = params.get("active", True)
        found = [id_ for id_, price in self.prices.items() if price["active"] == active]
        return {"data": [self.get(id_) for id_ in reversed(found)], "has_more": False}

    def change(self, rng: Random) -> str:
        """Do what a person who keeps the prices does; return what it was."""
        deed = rng.choice(["price", "price", "archive", "product", "activate", "activate"])
        sku = rng.choice(sorted(SKUS))
        mine = [price for price in self.prices.values() if price["id"].endswith(f"_{sku}")]
        price = rng.choice(mine)
        if deed == "price":
            self.add(sku, price["currency"], rng.choice(UNITS), **_odd(rng))
        elif deed == "product":
            self._set_active(self.products[price["product"]], "product", active=False)
        elif deed == "archive":
            self._set_active(price, "price", active=False)
        else:
            self.restore(price)
        return f"{deed} {price['id']}"

    def restore(self, price: Record) -> None:
        """Make a price and its product active again."""
        self._set_active(price, "price", active=True)
        self._set_active(self.products[price["product"]], "product", active=True)

    def _set_active(self, record: Record, kind: str, *, active: bool) -> None:
        record["active"] = active
        self._emit(f"{kind}.updated", record)

    def _is_active(self, price: Mapping[str, Any]) -> bool:
        return bool(price["active"] and self.products[price["product"]]["active"])

    def _is_usable(self, price: Mapping[str, Any]) -> bool:
        counts_units = price["type"] == "one_time" and price["transform_quantity"] is None
        return counts_units and self._is_active(price)


def _odd(rng: Random) -> Record:
    """Return nothing, or now and then what makes a price one that does not multiply."""
    chance = rng.random()
    if chance < 0.1:
        return {"type": "recurring"}
    if chance < 0.2:
        return {"transform_quantity": {"divide_by": 10, "round": "up"}}
    return {}
