"""Everything that runs, and the control path, ``/_sandbox/``, by which a test asks for trouble."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from sandbox import invoices
from sandbox.account import DAY, Account
from sandbox.actions import Routes
from sandbox.errors import StripeError
from sandbox.faults import ON_REQUEST, Faults, Limiter, Settings, taken
from sandbox.params import Params, check, encode
from sandbox.sdk import Json
from sandbox.webhooks import Courier

Body = dict[str, Any]
TICK_SECONDS: Final = 1
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

    def perform(self, endpoint: str, params: Params, *ids: str, by: str | None = None) -> Json:
        """Do what *endpoint* does, outside HTTP and without an idempotency key."""
        with self.account.unit(request=by):
            return self.routes.named[endpoint].perform(self.account, params, ids)

    def hear(self, **endpoint: Any) -> str:
        """Register a webhook endpoint, by default for all events; one with its url stays."""
        for name, each in self.account.rows["webhook_endpoints"].items():
            if each["url"] == endpoint["url"]:
                return name
        params = {"enabled_events": ["*"], **endpoint}
        return str(self.perform("POST /v1/webhook_endpoints", params)["id"])

    def seed_from(self, path: Path) -> None:
        """Create what the file lists: {"customers": [{params, "id" if it matters}, …], …}.

        What exists already is left alone, so that a restart with a state file changes nothing.
        """
        for kind, listed in orjson.loads(path.read_bytes()).items():
            for given in listed:
                own = {"id": given.pop("id")} if "id" in given else {}
                if own.get("id") not in self.account.rows[kind]:
                    endpoint = f"POST /v1/{kind}"
                    self.perform(endpoint, check(encode(given), endpoint) | own)

    def advance(self, seconds: float) -> Body:
        """Move the clock forward, and do what time has brought."""
        if seconds < 0:
            raise ValueError("the clock only moves forward")
        kept = self.account.rows["meta"]["account"]
        with self.account.unit():
            moved = self.account.put("meta", kept | {"offset": kept["offset"] + seconds})
        self.tick()
        return {"now": self.account.time(), "offset": moved["offset"]}

    def tick(self) -> None:
        """Finalize the drafts that are due, forget what is old enough."""
        invoices.run_timers(self.account)
        self.account.forget("events", "created", 30 * DAY)
        self.account.forget("keys", "at", DAY)

    async def run(self) -> None:
        """Let time pass, and webhooks be delivered, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.courier.run())
            while True:
                await asyncio.sleep(TICK_SECONDS)
                self.tick()

    def reset(self) -> None:
        """Forget every object, fault and count; what was given at start comes back."""
        _settings(self, self.at_start)
        self.account.clear()
        self.faults.orders.clear()
        self.limiter.counts.clear()
        self.courier.clear()

    async def handle(self, request: Request) -> Response:
        """Do what the control path is asked for; 404 or 400 say what there would be."""
        path = f"{request.method} {request.path_params['path']}"
        if path not in ACTS:
            return Response(f"There is no {path}; there are: {', '.join(ACTS)}", 404)
        act, known = ACTS[path]
        try:
            given = {**orjson.loads(await request.body() or b"{}"), **request.query_params}
            answer = act(self, given if known is None else taken(given, known))
            answer = await answer if asyncio.iscoroutine(answer) else answer
        except (StripeError, ValueError, TypeError, KeyError, AttributeError) as error:
            return Response(f"{type(error).__name__}: {error}", getattr(error, "status", 400))
        return Response(orjson.dumps(answer), media_type="application/json")


def _settings(world: World, body: Body) -> Body:
    if taken(body, world.at_start)["mode"] not in ("live", "sandbox"):
        raise ValueError("mode is live or sandbox")
    for name, value in body.items():
        setattr(world.settings, name, value)
    return asdict(world.settings)


def _fault(world: World, body: Body) -> Body:
    match = body.get("match", "*")
    if body.get("kind") in ON_REQUEST and match != "*" and match not in world.routes.named:
        raise ValueError(f"no such endpoint: {match}; GET counters shows how they are written")
    return {"id": world.faults.order(body)}


def _dashboard(world: World, body: Body) -> Body:
    """Do to an invoice what a person does in Stripe's Dashboard: no idempotency key."""
    action, invoice = body.pop("action", ""), body.pop("invoice", "")
    if action not in DASHBOARD:
        raise ValueError(f"unknown action: {action}; there are: {', '.join(DASHBOARD)}")
    if "line" in body:
        body["id"] = body.pop("line")
    if action.endswith("_line"):
        body = {"lines": [body | ({"behavior": "delete"} if action == "delete_line" else {})]}
    if action == "pay":
        body.setdefault("payment_method", "pm_card_visa")
    params, request = check(encode(body), DASHBOARD[action]), world.account.new_id("req_")
    return world.perform(DASHBOARD[action], params, invoice, by=request)


async def _drain(world: World, body: Body) -> Body:
    settled, report = await world.courier.drain(body["timeout"]), world.courier.report()
    counts = {key: len(report[key]) for key in ("pending", "failed")}
    return {"settled": settled, "delivered": report["delivered"], **counts}


# What is done, and the parameters that it takes; None where the act itself knows.
ACTS: Final[Mapping[str, tuple[Callable[[World, Body], Any], Body | None]]] = {
    "POST reset": (lambda world, _: world.reset(), {}),
    "GET settings": (_settings, {}),
    "POST settings": (_settings, None),
    "GET counters": (lambda world, _: world.limiter.report(), {}),
    "POST counters/reset": (lambda world, _: world.limiter.counts.clear(), {}),
    "GET faults": (lambda world, _: world.faults.orders, {}),
    "POST faults": (_fault, None),
    "DELETE faults": (lambda world, _: world.faults.orders.clear(), {}),
    "POST dashboard": (_dashboard, None),
    "GET clock": (lambda world, _: world.advance(0), {}),
    "POST clock": (lambda world, body: world.advance(body["advance"]), {"advance": 0.0}),
    "GET webhooks": (lambda world, _: world.courier.report(), {}),
    "POST webhooks/drain": (_drain, {"timeout": 10.0}),
    "POST webhooks/endpoint": (
        lambda world, body: {"id": world.hear(**body)},
        {"url": "", "secret": "", "enabled_events": ["*"]},
    ),
}
