"""The view on a real server, in the test's own event loop."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import httpx
import uvicorn
from graphql import GraphQLSchema
from starlette.applications import Starlette
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp

from gateway.auth.caller import Caller
from gateway.graphql import websocket
from gateway.graphql.admission.admission import Admission
from gateway.graphql.admission.limits import Limits
from gateway.graphql.admission.persisted import PersistedDocuments
from gateway.graphql.admission.rate_limiter import EdgeStore
from gateway.graphql.connection_limiter import Places
from gateway.graphql.http import GraphQLView
from gateway.graphql.runner import Operations
from gateway.http.errors import unauthenticated
from tests.support.small_schema import Context, Events, schema

CORE: GraphQLSchema = schema._schema


class Server(uvicorn.Server):
    """Leaves the signals to pytest."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Hear none."""
        yield


@asynccontextmanager
async def serve(app: ASGIApp) -> AsyncIterator[str]:
    """*app* on a free port of this machine, as ``127.0.0.1:port``."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, log_config=None, ws_ping_interval=None, timeout_graceful_shutdown=5
    )
    server = Server(config)
    running = asyncio.create_task(server.serve([listener]))
    while not server.started:  # noqa: ASYNC110 uvicorn says it in a flag
        await asyncio.sleep(0.005)
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await running


@dataclass
class Edge:
    """A view over the small schema, and what can be seen behind it."""

    store: EdgeStore
    limits: Limits = field(default_factory=Limits)
    trusted: dict[str, str] | None = None
    caller: Callable[[Caller], Caller] = lambda caller: caller
    events: Events = field(default_factory=Events)
    ending: asyncio.Event = field(default_factory=asyncio.Event)
    init_wait: timedelta = websocket.INIT_WAIT
    places: Places = field(default_factory=Places)

    async def authenticate(self, authorization: object) -> Caller:
        """Everybody who says ``Bearer <name>`` is that name."""
        if not isinstance(authorization, str) or not authorization.startswith("Bearer "):
            raise unauthenticated("Say who you are.")
        name = authorization.removeprefix("Bearer ")
        return self.caller(Caller(name, lambda: Context(self.events)))

    @property
    def app(self) -> Starlette:
        """The view, mounted as the gateway mounts it."""
        persisted = PersistedDocuments(self.store, self.trusted)
        admission = Admission(CORE, self.limits, self.store, persisted)
        operations = Operations(schema, admission, lambda _: None)
        view = GraphQLView(operations, self.authenticate, ending=self.ending)
        view.places = self.places
        view.connection_init_wait_timeout = self.init_wait
        return Starlette(routes=[Route("/graphql", view), WebSocketRoute("/graphql", view)])


@asynccontextmanager
async def client_of(edge: Edge) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody with a token, at a server made for one test."""
    async with (
        serve(edge.app) as address,
        httpx.AsyncClient(
            base_url=f"http://{address}", headers={"Authorization": "Bearer ann"}
        ) as client,
    ):
        yield client
