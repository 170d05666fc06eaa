"""The gateway's process: ``uvicorn --factory gateway.app:create_app``."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import cast

import httpx
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from billing.logs import configure_logging
from billing.services import open_services
from billing.settings import Environment, Settings, StartupError, load_settings
from billing.shutdown_signal import on_shutdown_signal
from gateway.auth.jwks import JwksClient
from gateway.auth.tokens import TokenVerifier, create_authenticator
from gateway.billing_extension import measure_billing, to_graphql_error
from gateway.graphql.admission.admission import Admission
from gateway.graphql.admission.best_effort_redis import BestEffortRedis
from gateway.graphql.admission.limits import Limits
from gateway.graphql.admission.persisted import DocumentStore, PersistedDocuments
from gateway.graphql.admission.rate_limiter import CostLimiter
from gateway.graphql.http import GraphQLEndpoint
from gateway.graphql.runner import OperationRunner
from gateway.health import health_routes
from gateway.http.errors import HttpError
from gateway.http.paths import PathNormalizer
from gateway.http.send_timeout import SendTimeout
from gateway.response_cache import ResponseCache, ResponseCacheMiddleware
from gateway.static_pages import page_routes
from gateway.telemetry import Telemetry, metrics_route
from gateway.usage_endpoint import usage_route
from schema.build import build_schema
from webhooks.endpoint import webhook_route


def create_app(settings: Settings | None = None) -> Starlette:
    """Build the application; its Services open at startup and are stored in ``state.services``."""
    configure_logging()
    settings = settings or load_settings()
    announced, shutting_down = asyncio.Event(), asyncio.Event()
    redis = BestEffortRedis.from_url(settings.cache)
    jwks_http = httpx.AsyncClient(timeout=3)
    response_cache = ResponseCache(lambda: app.state.services.cache)
    webhooks = webhook_route()
    app = Starlette(
        lifespan=_lifespan(settings, announced, shutting_down, [redis.close, jwks_http.aclose]),
        middleware=[
            Middleware(PathNormalizer),
            Middleware(Telemetry),
            Middleware(DirectRoute, webhooks),
            *_cors_middleware(settings.origins),
            Middleware(ResponseCacheMiddleware, response_cache, "/graphql"),
        ],
        exception_handlers={HttpError: _on_http_error, HTTPException: _on_starlette_error},
    )
    verifier = _create_verifier(settings, jwks_http)
    graphql = _create_graphql_endpoint(app, settings, verifier, redis, shutting_down)
    app.router.routes += [
        Route("/graphql", graphql),
        WebSocketRoute("/graphql", graphql),
        usage_route(verifier),
        webhooks,
        *health_routes(announced, shutting_down),
        metrics_route(settings.metrics_token),
        *page_routes(panel=settings.environment is Environment.DEVELOPMENT),
    ]
    app.router.redirect_slashes = False
    app.middleware_stack = SendTimeout(app.build_middleware_stack(), shutting_down)
    return app


def _lifespan(
    settings: Settings,
    announced: asyncio.Event,
    shutting_down: asyncio.Event,
    close_callbacks: list[Callable[[], Awaitable[None]]],
) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    """Open the Services while the application runs, and call *close_callbacks* after it."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        try:
            async with open_services(settings) as services:
                app.state.services = services
                # Objects that exist now stay; scanning them at each full collection takes 100 ms.
                gc.freeze()
                # A response's objects have no cycles and are freed without the collector, which took
                # a fifth of the CPU time.
                gc.set_threshold(50_000)
                stop, delay = shutting_down.set, settings.shutdown_delay
                with on_shutdown_signal(stop, announce=announced.set, delay=delay):
                    yield
        finally:
            for close in close_callbacks:
                await close()

    return lifespan


def _create_verifier(settings: Settings, client: httpx.AsyncClient) -> TokenVerifier:
    secret, previous = settings.jwt_secret, settings.jwt_previous_secret
    return TokenVerifier(
        secret.get_secret_value() if secret else None,
        JwksClient(settings.jwks_url, client) if settings.jwks_url else None,
        previous_secret=previous.get_secret_value() if previous else None,
        issuer=settings.jwt_issuer,
    )


def _create_graphql_endpoint(
    app: Starlette,
    settings: Settings,
    verifier: TokenVerifier,
    redis: BestEffortRedis,
    shutting_down: asyncio.Event,
) -> GraphQLEndpoint:
    core = build_schema()._schema  # noqa: SLF001 Strawberry shows graphql-core's schema nowhere else
    persisted = PersistedDocuments(
        DocumentStore(redis), _load_trusted_documents(settings.trusted_documents)
    )
    admission = Admission(core, Limits(), CostLimiter(redis), persisted)
    return GraphQLEndpoint(
        OperationRunner(core, admission, to_graphql_error, measure_billing),
        create_authenticator(app, verifier, settings),
        shutdown=shutting_down,
        allowed_origins=settings.origins,
    )


def _load_trusted_documents(path: str) -> dict[str, str] | None:
    """Return the trusted documents at *path*; None when it is empty and any document may run."""
    if not path:
        return None
    try:
        documents = json.loads(Path(path).read_text())
        return {str(name): str(text) for name, text in documents.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise StartupError(
            f"Refusing to start: BILLING_TRUSTED_DOCUMENTS ({path}) is not a JSON object of id to document."
        ) from error


def _cors_middleware(origins: list[str]) -> list[Middleware]:
    """Allow cross-origin calls from *origins*. There are no cookies, so a page needs a token."""
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["Retry-After", "X-Request-Id"],
        )
    ]


async def _on_http_error(_: Request, error: Exception) -> Response:
    return cast("HttpError", error).response()


async def _on_starlette_error(_: Request, error: Exception) -> Response:
    """Starlette's own errors (404, 405), as JSON."""
    http = cast("HTTPException", error)
    code = http.detail.upper().replace(" ", "_")
    return HttpError(http.status_code, code, f"{http.detail}.", http.headers).response()


class DirectRoute:
    """ASGI middleware: sends *route*'s POSTs straight to its endpoint, everything else to *app*.

    Matching a route costs as much CPU as verifying a webhook's signature.
    """

    def __init__(self, app: ASGIApp, route: Route) -> None:
        self._app = app
        self._path = route.path
        self._endpoint = route.app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        direct = (
            scope["type"] == "http" and scope["path"] == self._path and scope["method"] == "POST"
        )
        await (self._endpoint if direct else self._app)(scope, receive, send)
