"""The GraphQL endpoint on a real server, in the test's own event loop."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import uvicorn
from graphql import GraphQLSchema
from starlette.applications import Starlette
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp

from gateway.auth.caller import Caller
from gateway.graphql.admission.admission import Admission
from gateway.graphql.admission.best_effort_redis import BestEffortRedis
from gateway.graphql.admission.limits import Limits
from gateway.graphql.admission.persisted import DocumentStore, PersistedDocuments
from gateway.graphql.admission.rate_limiter import CostLimiter
from gateway.graphql.connection_limiter import ConnectionLimiter
from gateway.graphql.http import GraphQLEndpoint
from gateway.graphql.runner import OperationRunner
from gateway.http.errors import unauthenticated
from gateway.http.send_timeout import SendTimeout
from tests.support.small_schema import Context, EventRecorder, schema

CORE: GraphQLSchema = schema._schema


class Server(uvicorn.Server):
    """A server that leaves signals to pytest."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


@asynccontextmanager
async def serve(app: ASGIApp, root_path: str = "") -> AsyncIterator[str]:
    """Serve *app* on a free port; yields ``127.0.0.1:port``."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        log_config=None,
        ws_ping_interval=None,
        timeout_graceful_shutdown=5,
        root_path=root_path,
    )
    server = Server(config)
    running = asyncio.create_task(server.serve([listener]))
    while not server.started:  # noqa: ASYNC110 uvicorn has only a flag
        await asyncio.sleep(0.005)
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await running


@dataclass
class SmallGateway:
    """A GraphQL endpoint over the small schema; change its fields before `app` is served."""

    redis: BestEffortRedis
    limits: Limits = field(default_factory=Limits)
    capacity: int = 20_000
    rate: int = 1_000
    trusted: dict[str, str] | None = None
    caller: Callable[[Caller], Caller] = lambda caller: caller
    recorder: EventRecorder = field(default_factory=EventRecorder)
    shutdown: asyncio.Event = field(default_factory=asyncio.Event)
    connection_limiter: ConnectionLimiter = field(default_factory=ConnectionLimiter)

    async def authenticate(self, authorization: object) -> Caller:
        """Accept ``Bearer <name>`` as the caller *name*."""
        if not isinstance(authorization, str) or not authorization.startswith("Bearer "):
            raise unauthenticated("Say who you are.")
        name = authorization.removeprefix("Bearer ")
        return self.caller(Caller(name, lambda: Context(self.recorder)))

    @property
    def app(self) -> Starlette:
        """The endpoint, routed as in the gateway."""
        persisted = PersistedDocuments(DocumentStore(self.redis), self.trusted)
        limiter = CostLimiter(self.redis, capacity=self.capacity, rate=self.rate)
        admission = Admission(CORE, self.limits, limiter, persisted)
        runner = OperationRunner(CORE, admission, lambda _: None)
        endpoint = GraphQLEndpoint(runner, self.authenticate, shutdown=self.shutdown)
        endpoint.connection_limiter = self.connection_limiter
        app = Starlette(routes=[Route("/graphql", endpoint), WebSocketRoute("/graphql", endpoint)])
        app.middleware_stack = SendTimeout(app.build_middleware_stack(), self.shutdown)
        return app


@asynccontextmanager
async def http_client(small_gateway: SmallGateway) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a token, of a server made for one test."""
    async with (
        serve(small_gateway.app) as address,
        httpx.AsyncClient(
            base_url=f"http://{address}", headers={"Authorization": "Bearer ann"}, timeout=60
        ) as client,
    ):
        yield client
