"""Everything that runs, and the control path, ``/_sandbox/``, by which a test asks for trouble."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sandbox import invoices
from sandbox.account import HOUR, Account, Unit
from sandbox.actions import Routes
from sandbox.errors import StripeError
from sandbox.forms import Params
from sandbox.hostility import ON_REQUEST, Faults, Limiter, Settings
from sandbox.sdk import Json
from sandbox.webhooks import Courier

Body = dict[str, Any]
# Kind of record and the name of its time → how long it is kept.
KEPT: Final = {("events", "created"): 30 * 24 * HOUR, ("keys", "at"): 24 * HOUR}
_INVOICE: Final = "POST /v1/invoices/{invoice}"
DASHBOARD: Final[Mapping[str, str]] = {
    "update": _INVOICE,
    "delete": "DELETE /v1/invoices/{invoice}",
    "add_line": f"{_INVOICE}/add_lines",
    "edit_line": f"{_INVOICE}/update_lines",
    "delete_line": f"{_INVOICE}/remove_lines",
} | {verb: f"{_INVOICE}/{verb}" for verb in ("finalize", "void", "pay", "mark_uncollectible")}


class World:
    """The account and what acts on it."""

    def __init__(self, settings: Settings, path: Path | None = None, seed: int = 0) -> None:
        self.account, self.settings = Account(settings, path, seed), settings
        self.at_start = asdict(settings)
        self.limiter, self.faults, self.routes = Limiter(settings, seed), Faults(), Routes()
        self.courier = Courier(self.account, self.faults)

    def perform(self, unit: Unit, endpoint: str, params: Params, *ids: str) -> Json:
        """Do what *endpoint* does, outside HTTP; *params* as JSON, taken as they are."""
        return self.routes.named[endpoint].perform(unit, params, ids)

    def hear(self, **endpoint: Any) -> str:
        """Register a webhook endpoint, by default for all events; one with its url stays."""
        held = self.account.rows["webhook_endpoints"].values()
        if known := next((each for each in held if each["url"] == endpoint["url"]), None):
            return str(known["id"])
        unit, params = Unit(self.account), {"enabled_events": ["*"], **endpoint}
        made = self.perform(unit, "POST /v1/webhook_endpoints", params)
        unit.commit()
        return str(made["id"])

    def seed_from(self, path: Path) -> None:
        """Create what the file lists: {"customers": [{params, "id" if it matters}, …], …}.

        What exists already is left alone, so that a restart with a state file changes nothing.
        """
        for kind, listed in orjson.loads(path.read_bytes()).items():
            for params in listed:
                unit = Unit(self.account)
                if unit.find(kind, params.get("id")) is None:
                    self.perform(unit, f"POST /v1/{kind}", params)
                    unit.commit()

    def advance(self, seconds: float) -> None:
        """Move the clock forward, and do what time has brought."""
        self.account.advance(seconds)
        self.tick()
        self.courier.wake.set()

    def tick(self) -> None:
        """Finalize the drafts that are due, forget what is old enough."""
        invoices.run_timers(self.account)
        for (kind, time), seconds in KEPT.items():
            _forget(self.account, kind, time, self.account.now() - seconds)

    def reset(self) -> None:
        """Forget every object, fault and count; what was given at start comes back."""
        for name, value in self.at_start.items():
            setattr(self.settings, name, value)
        self.account.clear()
        self.faults.orders.clear()
        self.limiter.counts.clear()
        self.courier.reload()


def routes(world: World) -> list[Route]:
    """Return the control routes over *world*."""
    return [
        Route(f"/_sandbox/{path}", _route(world, act), methods=[method])
        for (method, path), act in ACTS.items()
    ]


def _forget(account: Account, kind: str, time: str, end: float) -> None:
    old = takewhile(lambda each: each[time] <= end, account.rows[kind].values())
    if changes := [(kind, each["id"], None) for each in old]:
        account.commit(list(changes))


def _route(world: World, act: Callable[[World, Body], Any]) -> Callable[[Request], Any]:
    async def handle(request: Request) -> Response:
        try:
            answer = act(world, orjson.loads(await request.body() or b"{}"))
            answer = await answer if hasattr(answer, "__await__") else answer
        except StripeError as error:
            return Response(str(error), error.status)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return Response(f"{type(error).__name__}: {error}", 400)
        return Response(orjson.dumps(answer), media_type="application/json")

    return handle


def _settings(world: World, body: Body) -> Body:
    for name, value in body.items():
        if name not in world.at_start:
            raise ValueError(f"unknown setting: {name}")
        setattr(world.settings, name, value)
    return asdict(world.settings)


def _fault(world: World, body: Body) -> Body:
    match = body.get("match", "*")
    if body["kind"] in ON_REQUEST and match != "*" and match not in world.routes.named:
        raise ValueError(f"no such endpoint: {match}")
    return {"id": world.faults.order(**body)}


def _dashboard(world: World, body: Body) -> Body:
    """Do to an invoice what a person does in Stripe's Dashboard: no idempotency key."""
    action, invoice = body.pop("action"), body.pop("invoice")
    if "line" in body:
        body["id"] = body.pop("line")
    if action.endswith("_line"):
        body = {"lines": [body | ({"behavior": "delete"} if action == "delete_line" else {})]}
    if action == "pay":
        body.setdefault("payment_method", "pm_card_visa")
    unit = Unit(world.account, world.account.new_id("req_"))
    shown = world.perform(unit, DASHBOARD[action], body, invoice)
    unit.commit()
    return shown


def _clock(world: World, body: Body) -> Body:
    world.advance(body.get("advance", 0))
    return {"now": world.account.now(), "offset": world.account.offset}


async def _drain(world: World, body: Body) -> Body:
    settled = await world.courier.drain(body.get("timeout", 10))
    report = world.courier.report()
    counts = {key: len(report[key]) for key in ("pending", "failed")}
    return {"settled": settled, **counts, "delivered": report["delivered"]}


ACTS: Final[Mapping[tuple[str, str], Callable[[World, Body], Any]]] = {
    ("POST", "reset"): lambda world, _: world.reset(),
    ("GET", "settings"): _settings,
    ("POST", "settings"): _settings,
    ("GET", "counters"): lambda world, _: world.limiter.report(),
    ("POST", "counters/reset"): lambda world, _: world.limiter.counts.clear(),
    ("GET", "faults"): lambda world, _: [asdict(fault) for fault in world.faults.orders],
    ("POST", "faults"): _fault,
    ("DELETE", "faults"): lambda world, _: world.faults.orders.clear(),
    ("POST", "dashboard"): _dashboard,
    ("GET", "clock"): _clock,
    ("POST", "clock"): _clock,
    ("GET", "webhooks"): lambda world, _: world.courier.report(),
    ("POST", "webhooks/drain"): _drain,
    ("POST", "webhooks/endpoint"): lambda world, body: {"id": world.hear(**body)},
}
