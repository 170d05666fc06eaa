"""The control path, ``/_sandbox/``: what a test may ask of the world around the API."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sandbox import endpoints, finalization
from sandbox.account import Unit
from sandbox.defaults import Json
from sandbox.errors import StripeError
from sandbox.faults import ON_REQUEST
from sandbox.idempotency import prune
from sandbox.world import World

Body = dict[str, Any]


def routes(world: World) -> list[Route]:
    """Return the control routes over *world*."""
    return [
        Route(f"/_sandbox/{path}", _route(world, act), methods=[method])
        for (method, path), act in ACTS.items()
    ]


def tick(world: World) -> None:
    """Do what time has brought: drafts to finalize, things old enough to forget."""
    finalization.run_timers(world.account)
    unit = Unit(world.account)
    endpoints.prune_events(unit)
    prune(unit)
    unit.commit()


def _route(world: World, act: Callable[[World, Body], Any]) -> Callable[[Request], Any]:
    async def handle(request: Request) -> Response:
        try:
            answer = act(world, orjson.loads(await request.body() or b"{}"))
            if callable(answer):
                answer = await answer()
        except StripeError as error:
            return Response(str(error), error.status)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return Response(f"{type(error).__name__}: {error}", 400)
        return Response(orjson.dumps(answer), media_type="application/json")

    return handle


def _reset(world: World, _: Body) -> Body:
    world.reset()
    return {"reset": True}


def _settings(world: World, body: Body) -> Body:
    flat = {key: value for key, value in body.items() if key != "webhooks"}
    for name, value in {**flat, **body.get("webhooks", {})}.items():
        if name not in asdict(world.settings):
            raise ValueError(f"unknown setting: {name}")
        setattr(world.settings, name, value)
    return asdict(world.settings)


def _reset_counters(world: World, _: Body) -> Body:
    world.limiter.counts.clear()
    return {"reset": True}


def _fault(world: World, body: Body) -> Body:
    match = body.get("match", "*")
    if body["kind"] in ON_REQUEST and match != "*" and match not in world.routes.named:
        raise ValueError(f"no such endpoint: {match}")
    return {"id": world.faults.order(**body)}


def _no_faults(world: World, _: Body) -> Body:
    world.faults.orders.clear()
    return {"left": 0}


def _dashboard(world: World, body: Body) -> Json:
    """Do to an invoice what a person does in Stripe's Dashboard: no idempotency key."""
    action, invoice = body.pop("action"), body.pop("invoice")
    if action not in DASHBOARD:
        raise ValueError(f"unknown action: {action}")
    if "line" in body:
        body["id"] = body.pop("line")
    if action.endswith("_line"):
        body = {"lines": [body | ({"behavior": "delete"} if action == "delete_line" else {})]}
    if action == "pay":
        body.setdefault("payment_method", "pm_card_visa")
    unit = Unit(world.account, world.account.new_id("req_"))
    shown = world.perform(unit, DASHBOARD[action], body, ids=[invoice])
    unit.commit()
    return shown


def _clock(world: World, _: Body) -> Body:
    clock = world.account.clock
    return {"now": clock.now(), "offset": clock.offset, "real": time.time()}


def _move_clock(world: World, body: Body) -> Body:
    now = world.account.clock.now()
    world.account.advance(body["advance"] if "advance" in body else body["now"] - now)
    tick(world)
    world.courier.clock_moved()
    return _clock(world, body)


def _drain(world: World, body: Body) -> Callable[[], Any]:
    async def drained() -> Body:
        settled = await world.courier.drain(body.get("timeout", 10))
        report = world.courier.report()
        counts = {key: len(report[key]) for key in ("pending", "failed")}
        return {"settled": settled, **counts, "delivered": report["delivered"]}

    return drained


def _resend(world: World, body: Body) -> Body:
    world.courier.resend(body["event"])
    return {"queued": True}


def _endpoint(world: World, body: Body) -> Json:
    unit = Unit(world.account)
    shown = endpoints.create(unit, {"enabled_events": ["*"], **body})
    unit.commit()
    return shown


_INVOICE: Final = "POST /v1/invoices/{invoice}"
DASHBOARD: Final[Mapping[str, str]] = {
    "finalize": f"{_INVOICE}/finalize",
    "void": f"{_INVOICE}/void",
    "pay": f"{_INVOICE}/pay",
    "mark_uncollectible": f"{_INVOICE}/mark_uncollectible",
    "update": _INVOICE,
    "delete": "DELETE /v1/invoices/{invoice}",
    "add_line": f"{_INVOICE}/add_lines",
    "edit_line": f"{_INVOICE}/update_lines",
    "delete_line": f"{_INVOICE}/remove_lines",
}
ACTS: Final[Mapping[tuple[str, str], Callable[[World, Body], Any]]] = {
    ("POST", "reset"): _reset,
    ("GET", "settings"): lambda world, _: asdict(world.settings),
    ("POST", "settings"): _settings,
    ("GET", "counters"): lambda world, _: world.limiter.report(),
    ("POST", "counters/reset"): _reset_counters,
    ("GET", "faults"): lambda world, _: [asdict(fault) for fault in world.faults.orders],
    ("POST", "faults"): _fault,
    ("DELETE", "faults"): _no_faults,
    ("POST", "dashboard"): _dashboard,
    ("GET", "clock"): _clock,
    ("POST", "clock"): _move_clock,
    ("GET", "webhooks"): lambda world, _: world.courier.report(),
    ("POST", "webhooks/drain"): _drain,
    ("POST", "webhooks/resend"): _resend,
    ("POST", "webhooks/endpoint"): _endpoint,
}
