"""Everything that runs, made in one place and passed in; nothing happens at import."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from sandbox import catalogue, customers, endpoints, invoices, lines, payments
from sandbox.account import Account, Unit
from sandbox.clock import Clock
from sandbox.errors import StripeError
from sandbox.faults import Faults
from sandbox.limits import Limiter, Settings
from sandbox.shapes import Json
from sandbox.state import State
from sandbox.webhooks import Courier


@dataclass(slots=True)
class World:
    """The account and what acts on it."""

    account: Account
    settings: Settings
    limiter: Limiter
    faults: Faults
    courier: Courier

    def pay(self, unit: Unit, invoice: str) -> Json:
        """Pay as a person on the hosted page does: with a card that works."""
        return payments.pay(unit, {"payment_method": "pm_card_visa"}, invoice)

    def reset(self) -> None:
        """Forget every object, fault and count; endpoints registered at start come back."""
        kept = [
            e for e in self.account.state.rows["webhook_endpoints"].values() if e.get("_lasting")
        ]
        self.account.state.clear()
        self.account.clock.offset = 0.0
        changes = [("webhook_endpoints", each["id"], each) for each in kept]
        meta = {"id": "account", "starts": 1, "offset": 0.0}
        self.account.state.commit([("meta", "account", meta), *changes])
        self.faults.orders.clear()
        self.limiter.counts.clear()
        self.courier.reload()


def open_world(path: Path | None, seed: int, settings: Settings) -> World:
    """Make an account from the file at *path*, or an empty one."""
    account = Account(State(path), Clock(), seed)
    faults = Faults()
    courier = Courier(account, settings, faults)
    return World(account, settings, Limiter(settings, seed), faults, courier)


def register(world: World, url: str, secret: str) -> None:
    """Register a webhook endpoint that lasts through resets, unless it is there already."""
    unit = Unit(world.account)
    held = world.account.state.rows["webhook_endpoints"].values()
    if any(endpoint["url"] == url for endpoint in held):
        return
    made = endpoints.create(unit, {"url": url, "enabled_events": ["*"], "secret": secret})
    unit.put("webhook_endpoints", {**unit.get("webhook_endpoints", made["id"]), "_lasting": True})
    unit.commit()


def seed_from(world: World, path: Path) -> None:
    """Create what the file lists, by kind, with the API's own parameters and ids of its choice.

    What exists already is left alone, so that a restart with a state file changes nothing.
    """
    makers: dict[str, Any] = {
        "products": catalogue.create_product,
        "prices": catalogue.create_price,
        "customers": customers.create,
        "invoices": invoices.create,
        "invoiceitems": lines.create_item,
    }
    listed = orjson.loads(path.read_bytes())
    for kind, make in makers.items():
        for params in listed.get(kind, []):
            unit = Unit(world.account)
            if "id" in params and unit.find(kind, params["id"]):
                continue
            try:
                make(unit, dict(params))
            except StripeError as error:
                raise SystemExit(f"{path}: {kind} {params.get('id', '')}: {error}") from error
            unit.commit()
