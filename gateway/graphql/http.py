"""GraphQL over HTTP for a Strawberry schema: https://graphql.github.io/graphql-over-http/draft/.

`GraphQLView` is a `strawberry.asgi.GraphQL` that negotiates media types, answers every refusal as
JSON with the status that it deserves, and streams over SSE and WebSocket. There is no CSRF to prevent:
only the Authorization header says who asks, and no browser sends that by itself.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
from graphql import OperationType
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from strawberry.asgi import GraphQL
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL

from gateway.auth.caller import Authenticate
from gateway.graphql.connection_limiter import Places
from gateway.graphql.errors import LEGACY_REQUEST_ERROR, REQUEST_ERROR, STATUS
from gateway.graphql.frame_adapter import FrameAdapter
from gateway.graphql.keeping import KEY, Keeper, KeptResponse
from gateway.graphql.request_params import read_params
from gateway.graphql.responses import Body
from gateway.graphql.runner import Operations
from gateway.graphql.shutdown_notifier import Farewell
from gateway.graphql.sse import EventStream
from gateway.graphql.websocket import INIT_WAIT, MAX_OPERATIONS, Socket
from gateway.http.disconnect import while_awaited
from gateway.http.errors import HttpRefusal
from gateway.http.negotiation import MediaType, negotiate

MAX_BODY = 524_288
HEADERS = {"Cache-Control": "no-store", "Vary": "Accept", "X-Content-Type-Options": "nosniff"}

KINDS = {
    ("GET", False): (OperationType.QUERY,),
    ("GET", True): (OperationType.QUERY, OperationType.SUBSCRIPTION),
    ("POST", False): (OperationType.QUERY, OperationType.MUTATION),
    ("POST", True): tuple(OperationType),
}
"""What runs by which method, by whether the answer is a stream."""


class GraphQLView(GraphQL[Any, None]):
    """*operations* over HTTP, SSE and WebSocket, for those whom *authenticate* knows.

    When *ending* is set, streams end and sockets close, so that their clients connect elsewhere.
    *keeper* keeps answers that `Again` may give again. Pages on *allowed_origins* may open sockets beside
    those on our own.
    """

    websocket_adapter_class = FrameAdapter
    graphql_transport_ws_handler_class = Socket

    def __init__(
        self,
        operations: Operations,
        authenticate: Authenticate,
        *,
        ending: asyncio.Event,
        keeper: Keeper | None = None,
        allowed_origins: Sequence[str] = (),
    ) -> None:
        super().__init__(
            operations.schema,
            graphql_ide=None,
            subscription_protocols=[GRAPHQL_TRANSPORT_WS_PROTOCOL],
            connection_init_wait_timeout=INIT_WAIT,
            max_subscriptions_per_connection=MAX_OPERATIONS,
            allowed_origins=allowed_origins,
        )
        self.operations = operations
        self.authenticate = authenticate
        self.farewell = Farewell(ending)
        self.keeper = keeper
        self.places = Places()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or serve one WebSocket."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        try:
            response = await self._answer(Request(scope, receive))
        except HttpRefusal as refusal:
            response = refusal.response()
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        media = _negotiated(request)
        caller = await self.authenticate(request.headers.get("authorization"))
        params = await read_params(request, limit=MAX_BODY)
        kinds = KINDS[request.method, media is MediaType.EVENTS]
        if media is not MediaType.EVENTS:
            answer = self.operations.execute(params, caller, kinds)
            body, kind, context = await while_awaited(answer, request.receive)
            response = _response(body, media)
            key = request.scope.get(KEY)
            if self.keeper and key and kind is OperationType.QUERY and "errors" not in body:
                self.keeper.keep(key, KeptResponse.of(response), context, caller.until)
            return response
        if not self.places.take(caller.name):
            raise HttpRefusal(
                429, "TOO_MANY_STREAMS", "End some of your streams first.", {"Retry-After": "10"}
            )
        return EventStream(
            self.operations.stream(params, caller, kinds),
            until=caller.until,
            farewell=self.farewell,
            leave=lambda: self.places.leave(caller.name),
            headers=HEADERS,
        )


def _negotiated(request: Request) -> MediaType:
    if request.method not in ("GET", "POST"):
        raise HttpRefusal(
            405, "METHOD_NOT_ALLOWED", "Send GraphQL by GET or POST.", {"Allow": "GET, POST"}
        )
    media = negotiate(",".join(request.headers.getlist("accept")))
    if media is None:
        offered = ", ".join(MediaType)
        raise HttpRefusal(406, "NOT_ACCEPTABLE", f"Answers are written as one of {offered}.")
    return media


def _response(body: Body, media: MediaType) -> Response:
    if "data" in body:
        status, headers = 200, HEADERS
    else:
        status, headers = _refused(body["errors"][0].get("extensions", {}), media)
    return Response(orjson.dumps(body), status, headers, media.content_type)


def _refused(extensions: dict[str, Any], media: MediaType) -> tuple[int, dict[str, str]]:
    """The status and headers for a request error with *extensions*."""
    usual = LEGACY_REQUEST_ERROR if media is MediaType.JSON else REQUEST_ERROR
    headers = dict(HEADERS)
    if extensions.get("code") == "METHOD_NOT_ALLOWED":
        headers["Allow"] = "POST"
    if "retryAfter" in extensions:
        headers["Retry-After"] = str(extensions["retryAfter"])
    return STATUS.get(extensions.get("code", ""), usual), headers
