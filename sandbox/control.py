"""The control path, ``/_sandbox/``: what a test may ask of the world around the API."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sandbox import invoices
from sandbox.account import Unit
from sandbox.endpoints import create as create_endpoint
from sandbox.endpoints import prune_events
from sandbox.errors import StripeError
from sandbox.idempotency import prune
from sandbox.shapes import Json
from sandbox.world import World

Body = dict[str, Any]


def routes(world: World) -> list[Route]:
    """Return the control routes over *world*."""
    table: list[tuple[str, str, Callable[[World, Body], Any]]] = [
        ("POST", "/reset", _reset),
        ("POST", "/settings", _settings),
        ("GET", "/settings", lambda w, _: asdict(w.settings)),
        ("GET", "/counters", lambda w, _: w.limiter.report()),
        ("POST", "/counters/reset", _reset_counters),
        ("GET", "/faults", lambda w, _: [asdict(fault) for fault in w.faults.orders]),
        ("POST", "/faults", _fault),
        ("DELETE", "/faults", _no_faults),
        ("POST", "/dashboard", _dashboard),
        ("GET", "/clock", _clock),
        ("POST", "/clock", _move_clock),
        ("GET", "/webhooks", lambda w, _: w.courier.report()),
        ("POST", "/webhooks/resend", _resend),
        ("POST", "/webhooks/endpoint", _endpoint),
    ]
    found = [Route("/_sandbox" + path, _route(world, act), methods=[m]) for m, path, act in table]
    return [*found, Route("/_sandbox/webhooks/drain", _drain(world), methods=["POST"])]


def _route(world: World, act: Callable[[World, Body], Any]) -> Callable[[Request], Any]:
    async def handle(request: Request) -> Response:
        return _json(
            _tried(lambda: act(world, body)) if (body := await _body(request)) is not None else {}
        )

    return handle


def _drain(world: World) -> Callable[[Request], Any]:
    async def handle(request: Request) -> Response:
        timeout = (await _body(request)).get("timeout", 10)
        settled = await world.courier.drain(timeout)
        report = world.courier.report()
        counts = {key: len(report[key]) for key in ("pending", "failed")}
        return _json({"settled": settled, **counts, "delivered": report["delivered"]})

    return handle


def _tried(act: Callable[[], Any]) -> Any:
    try:
        return act()
    except (ValueError, TypeError, KeyError) as error:
        raise HTTPException(400, str(error)) from error
    except StripeError as error:
        raise HTTPException(error.status, str(error)) from error


def _reset(world: World, _body: Body) -> Body:
    world.reset()
    return {"reset": True}


def _settings(world: World, body: Body) -> Body:
    flat = {key: value for key, value in body.items() if key != "webhooks"}
    for name, value in {**flat, **body.get("webhooks", {})}.items():
        owner = world.account if name in ("search_lag", "max_events") else world.settings
        if owner is world.settings and name not in asdict(world.settings):
            raise ValueError(f"unknown setting: {name}")
        setattr(owner, name, value)
    return asdict(world.settings)


def _reset_counters(world: World, _body: Body) -> Body:
    world.limiter.counts.clear()
    return {"reset": True}


def _fault(world: World, body: Body) -> Body:
    return {"id": world.faults.order(**body)}


def _no_faults(world: World, _body: Body) -> Body:
    world.faults.orders.clear()
    return {"left": 0}


def _clock(world: World, _body: Body) -> Body:
    clock = world.account.clock
    return {"now": clock.now(), "offset": clock.offset, "real": time.time()}


def _move_clock(world: World, body: Body) -> Body:
    now = world.account.clock.now()
    world.account.advance(body["advance"] if "advance" in body else body["now"] - now)
    tick(world)
    world.courier.clock_moved()
    return _clock(world, body)


def _resend(world: World, body: Body) -> Body:
    world.courier.resend(body["event"])
    return {"queued": True}


def _endpoint(world: World, body: Body) -> Json:
    unit = Unit(world.account)
    shown = create_endpoint(unit, {"enabled_events": ["*"], **body})
    unit.commit()
    return shown


def tick(world: World) -> None:
    """Do what time has brought: drafts to finalize, things old enough to forget."""
    invoices.run_timers(world.account)
    unit = Unit(world.account)
    prune_events(unit)
    prune(unit)
    unit.commit()


def _dashboard(world: World, body: Body) -> Json:
    """Do to an invoice what a person does in Stripe's Dashboard: no idempotency key."""
    more = dict(body)
    action, invoice = more.pop("action"), more.pop("invoice")
    if action not in DASHBOARD:
        raise ValueError(f"unknown action: {action}")
    endpoint, params = DASHBOARD[action](more)
    unit = Unit(world.account, world.account.new_id("req_"))
    shown = world.perform(unit, endpoint, params, ids=[invoice])
    unit.commit()
    return shown


def _edit(more: Body) -> Body:
    return {("id" if key == "line" else key): value for key, value in more.items()}


def _on(verb: str, params: Callable[[Body], Body]) -> Callable[[Body], tuple[str, Body]]:
    endpoint = verb if " " in verb else f"POST /v1/invoices/{{invoice}}{verb}"
    return lambda more: (endpoint, params(more))


DASHBOARD: Final[Mapping[str, Callable[[Body], tuple[str, Body]]]] = {
    "finalize": _on("/finalize", lambda more: more),
    "void": _on("/void", lambda more: more),
    "pay": _on("/pay", lambda more: {"payment_method": "pm_card_visa", **more}),
    "mark_uncollectible": _on("/mark_uncollectible", lambda more: more),
    "update": _on("", lambda more: more),
    "delete": _on("DELETE /v1/invoices/{invoice}", lambda more: more),
    "add_line": _on("/add_lines", lambda more: {"lines": [more]}),
    "edit_line": _on("/update_lines", lambda more: {"lines": [_edit(more)]}),
    "delete_line": _on(
        "/remove_lines", lambda more: {"lines": [_edit(more) | {"behavior": "delete"}]}
    ),
}


async def _body(request: Request) -> Body:
    raw = await request.body()
    if not raw:
        return dict(request.query_params)
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise HTTPException(400, f"not JSON: {error}") from error
    if not isinstance(body, dict):
        raise HTTPException(400, "send a JSON object")
    return body


def _json(body: Any) -> Response:
    return Response(orjson.dumps(body), media_type="application/json")
