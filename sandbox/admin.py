"""The running sandbox, and its control API under ``/_sandbox/``, with which tests set it up."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from sandbox import company, invoices, payments
from sandbox.account import DAY, Account
from sandbox.actions import Routes
from sandbox.errors import StripeError
from sandbox.faults import REQUEST_FAULTS, Faults
from sandbox.limits import Limiter
from sandbox.params import Params, encode, validate
from sandbox.sdk import Json
from sandbox.settings import Settings, validated
from sandbox.webhooks import WebhookSender

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


class Sandbox:
    """The account with its limiter, faults, operations, timers and webhook sender."""

    def __init__(self, settings: Settings, path: Path | None = None, seed: int = 0) -> None:
        self.account, self.settings = Account(settings, path, seed), settings
        self.initial_settings = asdict(settings)
        self.limiter, self.faults, self.routes = Limiter(settings, seed), Faults(), Routes()
        self.webhook_sender = WebhookSender(self.account, self.faults)
        company.complete(self.account)

    def perform(self, endpoint: str, params: Params, *ids: str, by: str | None = None) -> Json:
        """Run the operation *endpoint* outside HTTP and without an idempotency key."""
        with self.account.transaction(request=by):
            return self.routes.operations[endpoint].perform(self.account, params, ids)

    def register_endpoint(self, **endpoint: Any) -> str:
        """Register a webhook endpoint, by default for all events, unless its URL is registered."""
        for name, registered in self.account.rows["webhook_endpoints"].items():
            if registered["url"] == endpoint["url"]:
                return name
        params = {"enabled_events": ["*"], **endpoint}
        return str(self.perform("POST /v1/webhook_endpoints", params)["id"])

    def load_seed(self, path: Path) -> None:
        """Create the objects of a seed file: {"customers": [{params, optional "id"}, …], …}.

        Existing objects are left alone, so that a restart with a state file changes nothing.
        """
        for kind, seeds in orjson.loads(path.read_bytes()).items():
            for seed in seeds:
                chosen_id = {"id": seed.pop("id")} if "id" in seed else {}
                if chosen_id.get("id") not in self.account.rows[kind]:
                    endpoint = f"POST /v1/{kind}"
                    self.perform(endpoint, validate(encode(seed), endpoint) | chosen_id)

    def advance(self, seconds: float) -> Body:
        """Move the clock forward by *seconds* and run the timers that are due."""
        if seconds < 0:
            raise ValueError("the clock only moves forward")
        meta = self.account.rows["meta"]["account"]
        with self.account.transaction():
            meta = self.account.put("meta", meta | {"offset": meta["offset"] + seconds})
        self.tick()
        return {"now": self.account.time(), "offset": meta["offset"]}

    def tick(self) -> None:
        """Finalize the drafts that are due; purge expired events and idempotency keys."""
        invoices.run_timers(self.account)
        payments.run_timers(self.account)
        self.account.purge("events", "created", 30 * DAY)
        self.account.purge("keys", "at", DAY)

    async def run(self) -> None:
        """Run the timers and the webhook sender for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.webhook_sender.run())
            while True:
                await asyncio.sleep(TICK_SECONDS)
                self.tick()

    def reset(self) -> None:
        """Remove all objects, faults and counts; restore the settings and endpoints given at start."""
        _change_settings(self, self.initial_settings)
        self.account.clear()
        company.complete(self.account)
        self.faults.active.clear()
        self.limiter.counts.clear()
        self.webhook_sender.clear()

    async def handle(self, request: Request) -> Response:
        """Handle one control request; a 404 or 400 lists the valid paths or parameters."""
        path = f"{request.method} {request.path_params['path']}"
        if path not in ROUTES:
            return Response(f"There is no {path}; there are: {', '.join(ROUTES)}", 404)
        handler, defaults = ROUTES[path]
        try:
            params = {**orjson.loads(await request.body() or b"{}"), **request.query_params}
            result = handler(self, params if defaults is None else validated(params, defaults))
            result = await result if asyncio.iscoroutine(result) else result
        except (StripeError, ValueError, TypeError, KeyError, AttributeError) as error:
            return Response(f"{type(error).__name__}: {error}", getattr(error, "status", 400))
        return Response(orjson.dumps(result), media_type="application/json")


def _change_settings(sandbox: Sandbox, body: Body) -> Body:
    if validated(body, sandbox.initial_settings)["mode"] not in ("live", "sandbox"):
        raise ValueError("mode is live or sandbox")
    for name, value in body.items():
        setattr(sandbox.settings, name, value)
    return asdict(sandbox.settings)


def _add_fault(sandbox: Sandbox, body: Body) -> Body:
    match = body.get("match", "*")
    if (
        body.get("kind") in REQUEST_FAULTS
        and match != "*"
        and match not in sandbox.routes.operations
    ):
        raise ValueError(f"no such endpoint: {match}; GET counters shows how they are written")
    return {"id": sandbox.faults.add(body)}


def _perform_dashboard_action(sandbox: Sandbox, body: Body) -> Body:
    """Change an invoice as a person does in Stripe's Dashboard: without an idempotency key."""
    action, invoice = body.pop("action", ""), body.pop("invoice", "")
    if action not in DASHBOARD:
        raise ValueError(f"unknown action: {action}; there are: {', '.join(DASHBOARD)}")
    if "line" in body:
        body["id"] = body.pop("line")
    if action.endswith("_line"):
        body = {"lines": [body | ({"behavior": "delete"} if action == "delete_line" else {})]}
    if action == "pay":
        body.setdefault("payment_method", "pm_card_visa")
    params, request = validate(encode(body), DASHBOARD[action]), sandbox.account.new_id("req_")
    return sandbox.perform(DASHBOARD[action], params, invoice, by=request)


def _put_object(sandbox: Sandbox, body: Body) -> Body:
    return company.put_object(sandbox.account, body["kind"], body["fields"])


def _revoke_key(sandbox: Sandbox, body: Body) -> None:
    company.revoke_key(sandbox.account, body["key"])


def _restrict_key(sandbox: Sandbox, body: Body) -> None:
    company.restrict_key(sandbox.account, body["key"], body["rights"])


async def _drain_webhooks(sandbox: Sandbox, body: Body) -> Body:
    drained = await sandbox.webhook_sender.drain(body["timeout"])
    report = sandbox.webhook_sender.report()
    counts = {key: len(report[key]) for key in ("pending", "failed")}
    return {"settled": drained, "delivered": report["delivered"], **counts}


# Request → its handler and the defaults of its parameters; None where the handler validates them.
ROUTES: Final[Mapping[str, tuple[Callable[[Sandbox, Body], Any], Body | None]]] = {
    "POST reset": (lambda sandbox, _: sandbox.reset(), {}),
    "GET settings": (_change_settings, {}),
    "POST settings": (_change_settings, None),
    "GET counters": (lambda sandbox, _: sandbox.limiter.report(), {}),
    "POST counters/reset": (lambda sandbox, _: sandbox.limiter.counts.clear(), {}),
    "GET faults": (lambda sandbox, _: sandbox.faults.active, {}),
    "POST faults": (_add_fault, None),
    "DELETE faults": (lambda sandbox, _: sandbox.faults.active.clear(), {}),
    "POST dashboard": (_perform_dashboard_action, None),
    "POST objects": (_put_object, {"kind": "", "fields": {}}),
    "POST keys": (_restrict_key, {"key": "", "rights": {}}),
    "POST keys/revoke": (_revoke_key, {"key": ""}),
    "GET clock": (lambda sandbox, _: sandbox.advance(0), {}),
    "POST clock": (lambda sandbox, body: sandbox.advance(body["advance"]), {"advance": 0.0}),
    "GET webhooks": (lambda sandbox, _: sandbox.webhook_sender.report(), {}),
    "POST webhooks/drain": (_drain_webhooks, {"timeout": 10.0}),
    "POST webhooks/endpoint": (
        lambda sandbox, body: {"id": sandbox.register_endpoint(**body)},
        {"url": "", "secret": "", "enabled_events": ["*"]},
    ),
}
