"""Around every request: an id that answer and log share, figures for Prometheus, and the last net."""

import re
import secrets
import time
from functools import cache
from itertools import count

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars

from billing.logs import frames
from gateway.http.errors import HttpRefusal
from gateway.shared_metrics import FleetFigures
from gateway.startup_errors import live

log = structlog.get_logger()

REQUESTS = Counter("billing_http_requests", "Requests answered.", ["route", "method", "status"])
SECONDS = Histogram("billing_http_seconds", "Time to an answer, streams to their end.", ["route"])
SOCKETS = Gauge("billing_websockets", "WebSockets open now.")

# Labels are chosen from these: a path is anybody's to invent.
ROUTES = ("/graphql", "/usage", "/webhooks/stripe", "/graphiql", "/healthz", "/readyz", "/metrics")
METHODS = ("GET", "POST")
REQUEST_ID = re.compile(rb"[\w.-]{1,64}")
_process = secrets.token_hex(6)
_requests = count(1)


class Telemetry:
    """Wraps *app*; outermost, so that whatever goes wrong inside is answered as JSON and logged."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one connection through."""
        if scope["type"] == "lifespan":
            await live(self._app, scope, receive, send)
            return
        request_id = _request_id(scope)
        bind_contextvars(
            request_id=request_id
        )  # each connection is a task, hence a context, of its own
        if scope["type"] == "http":
            await self._observed(scope, receive, _Answer(send, request_id))
        else:
            with SOCKETS.track_inprogress():
                await self._app(scope, receive, send)

    async def _observed(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        began = time.perf_counter()
        try:
            await self._app(scope, receive, answer)
        except ClientDisconnect:
            pass
        except Exception as fault:  # noqa: BLE001 the last net
            log.error("http.fault", fault=type(fault).__name__, at=frames(fault))  # noqa: TRY400 its text stays here
            if answer.status is None:
                await _failure(answer.request_id)(scope, receive, answer)
        seconds, requests = _figures(
            next((each for each in ROUTES if scope["path"].startswith(each)), "/"),
            scope["method"] if scope["method"] in METHODS else "other",
            answer.status,
        )
        seconds.observe(time.perf_counter() - began)
        requests.inc()


@cache
def _figures(route: str, method: str, status: int | None) -> tuple[Histogram, Counter]:
    """Where an answer is counted; finding it by its labels costs more than counting."""
    return SECONDS.labels(route), REQUESTS.labels(route, method, status)


class _Answer:
    """A `send` that names the request in the answer and remembers its status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self.request_id = request_id
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [
                *message.get("headers", ()),
                (b"x-request-id", self.request_id.encode()),
            ]
        await self._send(message)


def metrics_route() -> Route:
    """``GET /metrics``: this process's figures, and those that all processes share."""
    fleet = FleetFigures()

    async def metrics(request: Request) -> Response:
        shared = await fleet.told(request.app.state.services)
        return Response(generate_latest() + shared, media_type=CONTENT_TYPE_LATEST)

    return Route("/metrics", metrics)


def _request_id(scope: Scope) -> str:
    """The caller's own id for the request, if it is one, so that both sides' logs meet."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
            return str(value.decode())
    return f"{_process}{next(_requests):x}"  # a random id would cost a system call each


def _failure(request_id: str) -> Response:
    message = f"Something went wrong on our side; quote {request_id} when you ask about it."
    return HttpRefusal(500, "INTERNAL_SERVER_ERROR", message).response()
