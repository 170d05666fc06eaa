"""Everything that runs, made in one place and passed in; nothing happens at import."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from sandbox import endpoints
from sandbox.account import Account, Unit
from sandbox.clock import Clock
from sandbox.defaults import Json
from sandbox.errors import StripeError
from sandbox.faults import Faults
from sandbox.forms import Params, as_form, check
from sandbox.limits import Limiter
from sandbox.routes import Routes
from sandbox.settings import Settings
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
    routes: Routes = field(default_factory=Routes)
    at_start: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        """Remember the settings to come back to."""
        self.at_start = asdict(self.settings)

    def perform(
        self,
        unit: Unit,
        endpoint: str,
        params: Params,
        new_id: str | None = None,
        ids: Sequence[str] = (),
    ) -> Json:
        """Do what *endpoint* does, outside HTTP; *new_id* names what it creates."""
        operation = self.routes.named[endpoint]
        taken = check(as_form(params), operation.fields)
        return operation.handle(unit, taken | ({"id": new_id} if new_id else {}), *ids)

    def reset(self) -> None:
        """Forget every object, fault and count; what was given at start comes back."""
        for name, value in self.at_start.items():
            setattr(self.settings, name, value)
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
    account = Account(State(path), Clock(), seed, settings=settings)
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
    """Create what the file lists: {"customers": [{params, "id" if it matters}, …], "products": …}.

    What exists already is left alone, so that a restart with a state file changes nothing.
    """
    listed = orjson.loads(path.read_bytes())
    for kind in ("products", "prices", "customers", "invoices", "invoiceitems"):
        for params in listed.get(kind, []):
            unit = Unit(world.account)
            object_id = params.pop("id", None)
            if object_id and unit.find(kind, object_id):
                continue
            try:
                world.perform(unit, f"POST /v1/{kind}", params, object_id)
            except StripeError as error:
                raise SystemExit(f"{path}: {kind} {object_id or ''}: {error}") from error
            unit.commit()
