"""Middleware around every request: request id, Prometheus metrics, and the catch-all error handler.

It also ends a failed startup in one logged sentence; Starlette would print a traceback.
"""

import re
import secrets
import time
from functools import cache
from itertools import count

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest
from pydantic import SecretStr
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars

from billing.logs import frames
from billing.settings import StartupError
from gateway.http.errors import HttpError, unauthenticated
from gateway.shared_metrics import SharedMetrics

log = structlog.get_logger()

REQUESTS = Counter("billing_http_requests", "HTTP requests.", ["route", "method", "status"])
DURATION = Histogram("billing_http_seconds", "Time to the end of the response.", ["route"])
WEBSOCKETS = Gauge("billing_websockets", "WebSockets open now.")

# The label values: a client can send any path, which must not become a label.
ROUTES = ("/graphql", "/usage", "/webhooks/stripe", "/graphiql", "/healthz", "/readyz", "/metrics")
METHODS = ("GET", "POST")
REQUEST_ID = re.compile(rb"[\w.-]{1,64}")
STARTUP_FAILED = "lifespan.startup.failed"
_process = secrets.token_hex(6)
_requests = count(1)


class Telemetry:
    """ASGI middleware around *app*; the outermost, so that every exception is logged and answered in JSON."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] == "lifespan":
            await lifespan(self._app, scope, receive, send)
            return
        request_id = _request_id(scope)
        bind_contextvars(request_id=request_id)  # each connection has a task and context of its own
        if scope["type"] == "http":
            await self._observe(scope, receive, _ResponseObserver(send, request_id))
        else:
            with WEBSOCKETS.track_inprogress():
                await self._app(scope, receive, send)

    async def _observe(self, scope: Scope, receive: Receive, observer: "_ResponseObserver") -> None:
        started_at = time.perf_counter()
        try:
            await self._app(scope, receive, observer)
        except ClientDisconnect:
            pass
        except Exception as error:  # noqa: BLE001 the catch-all handler
            log.error("http.fault", fault=type(error).__name__, at=frames(error))  # noqa: TRY400 its text may be secret
            if observer.status is None:
                await _internal_error(observer.request_id)(scope, receive, observer)
        seconds, requests = _metrics_for(
            next((route for route in ROUTES if scope["path"].startswith(route)), "/"),
            scope["method"] if scope["method"] in METHODS else "other",
            observer.status,
        )
        seconds.observe(time.perf_counter() - started_at)
        requests.inc()


@cache
def _metrics_for(route: str, method: str, status: int | None) -> tuple[Histogram, Counter]:
    """Return the two metrics of a response; looking them up by label costs more than counting."""
    return DURATION.labels(route), REQUESTS.labels(route, method, status)


class _ResponseObserver:
    """A `send` that adds the request id to the response's headers and records its status."""

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


async def lifespan(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run *app*'s lifespan; a StartupError, which has been logged, is reported without its traceback."""
    failed: list[Message] = []

    async def forward(message: Message) -> None:
        if message["type"] == STARTUP_FAILED:
            failed.append(message)
        else:
            await send(message)

    try:
        await app(scope, receive, forward)
    except StartupError:
        await send({"type": STARTUP_FAILED})
    except BaseException:
        for message in failed:
            await send(message)
        raise


def metrics_route(token: SecretStr | None) -> Route:
    """``GET /metrics``: this process's metrics, and those that all processes share, for who has the *token*."""
    shared = SharedMetrics()
    wanted = f"Bearer {token.get_secret_value()}".encode() if token else b""

    async def metrics(request: Request) -> Response:
        given = request.headers.get("authorization", "").encode()
        if wanted and not secrets.compare_digest(given, wanted):
            raise unauthenticated("Send BILLING_METRICS_TOKEN as a bearer token.")
        text = generate_latest() + await shared.render(request.app.state.services)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    return Route("/metrics", metrics)


def _request_id(scope: Scope) -> str:
    """Return the client's own request id if it is well-formed, so that both logs share it; or a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
            return str(value.decode())
    return f"{_process}{next(_requests):x}"  # a random id would cost a system call each


def _internal_error(request_id: str) -> Response:
    message = f"Something went wrong on our side; quote {request_id} when you ask about it."
    return HttpError(500, "INTERNAL_SERVER_ERROR", message).response()
