"""The gateway's process: ``uvicorn --factory gateway.app:create_app``."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import cast

import httpx
import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute

from billing.logs import configure_logging
from billing.services import open_services
from billing.settings import Environment, Settings, SettingsRefused, load_settings
from gateway.auth.authenticate import authenticator, explain
from gateway.auth.tokens import KeySet, Tokens
from gateway.billing_extension import billing_report
from gateway.graphql.admission.admission import Admission
from gateway.graphql.admission.limits import Limits
from gateway.graphql.admission.persisted import PersistedDocuments
from gateway.graphql.admission.rate_limiter import EdgeStore
from gateway.graphql.http import GraphQLView
from gateway.graphql.keeping import Again
from gateway.graphql.runner import Operations
from gateway.health import health_routes
from gateway.http.errors import HttpRefusal
from gateway.http.shutdown import heard
from gateway.response_cache import KeptAnswers
from gateway.static_pages import web_pages
from gateway.telemetry import Telemetry, metrics_route
from gateway.usage_endpoint import usage_route
from gateway.webhook_shortcut import Ahead
from schema.build import build_schema
from webhooks.endpoint import webhook_route

log = structlog.get_logger()


def create_app(settings: Settings | None = None) -> Starlette:
    """The gateway; its Services open when it starts and are kept in ``state.services``."""
    configure_logging()
    settings = settings or load_settings()
    ending = asyncio.Event()
    store = EdgeStore.open(settings.cache)
    keys = httpx.AsyncClient(timeout=3)
    kept = KeptAnswers(lambda: app.state.services.cache)
    webhooks = webhook_route()
    app = Starlette(
        lifespan=_lifespan(settings, ending, [store.close, keys.aclose]),
        middleware=[
            Middleware(Telemetry),
            Middleware(Ahead, webhooks),
            *_cors(_origins(settings)),
            Middleware(Again, kept, "/graphql"),
        ],
        exception_handlers={HttpRefusal: _refused, HTTPException: _not_served},
    )
    tokens = _tokens(settings, keys)
    view = _view(app, settings, tokens, store, ending, kept)
    app.router.routes += [
        Route("/graphql", view),
        WebSocketRoute("/graphql", view),
        usage_route(tokens),
        webhooks,
        *health_routes(ending),
        metrics_route(),
        *web_pages(panel=settings.environment is Environment.DEVELOPMENT),
    ]
    return app


def _lifespan(
    settings: Settings, ending: asyncio.Event, closing: list[Callable[[], Awaitable[None]]]
) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        try:
            async with open_services(settings) as services:
                app.state.services = services
                # What is here by now stays; looking through it at each full collection takes 100 ms.
                gc.freeze()
                # An answer's objects go when it has left; looking for cycles among them took a fifth of
                # the time.
                gc.set_threshold(50_000)
                with heard(ending):
                    yield
        finally:
            for close in closing:
                await close()

    return lifespan


def _tokens(settings: Settings, client: httpx.AsyncClient) -> Tokens:
    secret = settings.jwt_secret.get_secret_value() if settings.jwt_secret else None
    return Tokens(secret, KeySet(settings.jwks_url, client) if settings.jwks_url else None)


def _view(
    app: Starlette,
    settings: Settings,
    tokens: Tokens,
    store: EdgeStore,
    ending: asyncio.Event,
    kept: KeptAnswers,
) -> GraphQLView:
    schema = build_schema()
    persisted = PersistedDocuments(store, _manifest(settings.trusted_documents))
    core = schema._schema  # noqa: SLF001 Strawberry shows graphql-core's schema nowhere else
    return GraphQLView(
        Operations(schema, Admission(core, Limits(), store, persisted), explain, billing_report),
        authenticator(app, tokens, settings),
        ending=ending,
        keeper=kept,
        allowed_origins=_origins(settings),
    )


def _manifest(path: str) -> dict[str, str] | None:
    """The trusted documents at *path*; None when it is empty and anything may run."""
    if not path:
        return None
    try:
        found = json.loads(Path(path).read_text())
        return {str(name): str(text) for name, text in found.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise SettingsRefused(
            f"Refusing to start: BILLING_TRUSTED_DOCUMENTS ({path}) is no JSON object of id to document."
        ) from error


def _origins(settings: Settings) -> list[str]:
    return [each.strip() for each in settings.allowed_origins.split(",") if each.strip()]


def _cors(origins: list[str]) -> list[Middleware]:
    """Lets pages on *origins* call; there are no cookies, so a token is all that they can bring."""
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


async def _refused(_: Request, error: Exception) -> Response:
    return cast("HttpRefusal", error).response()


async def _not_served(_: Request, error: Exception) -> Response:
    """Starlette's own refusals (404, 405), as JSON."""
    refusal = cast("HTTPException", error)
    code = refusal.detail.upper().replace(" ", "_")
    return HttpRefusal(refusal.status_code, code, f"{refusal.detail}.", refusal.headers).response()
