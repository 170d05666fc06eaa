"""GraphQL over HTTP: https://graphql.github.io/graphql-over-http/draft/.

`GraphQLEndpoint` negotiates the media type, answers every error as JSON, and hands streams to SSE and
sockets to WebSocket. No protection against CSRF is needed: only the Authorization header identifies a
caller, and no browser sends that by itself.
"""

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

import orjson
from graphql import OperationType
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from strawberry.http.websocket_origin import normalize_allowed_origins

from gateway.auth.caller import Authenticate, Caller
from gateway.graphql.connection_limiter import ConnectionLimiter
from gateway.graphql.errors import LEGACY_REQUEST_ERROR_STATUS, REQUEST_ERROR_STATUS, STATUS_BY_CODE
from gateway.graphql.request_params import RequestParams, read_params
from gateway.graphql.responses import ResponseBody
from gateway.graphql.runner import OperationRunner
from gateway.graphql.shutdown_notifier import ShutdownNotifier
from gateway.graphql.sse import EventStreamResponse
from gateway.graphql.websocket import WebSocketHandler, is_origin_allowed
from gateway.graphql.ws_messages import CloseCode
from gateway.http.disconnect import cancel_on_disconnect
from gateway.http.errors import HttpError
from gateway.http.negotiation import MediaType, negotiate

MAX_BODY_BYTES = 524_288
RESPONSE_HEADERS = {
    "Cache-Control": "no-store",
    "Vary": "Accept",
    "X-Content-Type-Options": "nosniff",
}

ALLOWED_OPERATIONS = {
    ("GET", False): (OperationType.QUERY,),
    ("GET", True): (OperationType.QUERY, OperationType.SUBSCRIPTION),
    ("POST", False): (OperationType.QUERY, OperationType.MUTATION),
    ("POST", True): tuple(OperationType),
}
"""The operation types that may run, by method and by whether the response is a stream."""

STORE_RESPONSE = "gateway.store_response"
"""The scope key of a function that a middleware may set: it gets each response to a query without errors,
with the context of the query and the Unix time at which the caller's token expires."""


class GraphQLEndpoint:
    """Serves *runner*'s operations over HTTP, SSE and WebSocket to callers that *authenticate* accepts.

    When *shutdown* is set, streams end and sockets close, so that their clients reconnect elsewhere.
    Pages on *allowed_origins*, beside those of the same origin, may open sockets.
    """

    def __init__(
        self,
        runner: OperationRunner,
        authenticate: Authenticate,
        *,
        shutdown: asyncio.Event,
        allowed_origins: Sequence[str] = (),
    ) -> None:
        self.runner = runner
        self.authenticate = authenticate
        self.shutdown_notifier = ShutdownNotifier(shutdown)
        self.allowed_origins = normalize_allowed_origins(allowed_origins)
        self.connection_limiter = ConnectionLimiter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or serve one WebSocket."""
        if scope["type"] == "websocket":
            await self._serve_websocket(WebSocket(scope, receive, send))
            return
        try:
            response = await self._respond(Request(scope, receive))
        except HttpError as error:
            response = error.response()
        await response(scope, receive, send)

    async def _serve_websocket(self, websocket: WebSocket) -> None:
        if not is_origin_allowed(websocket.headers, self.allowed_origins):
            await websocket.close(CloseCode.POLICY_VIOLATION)  # before it is accepted: a 403
            return
        handler = WebSocketHandler(
            self.runner, self.authenticate, self.shutdown_notifier, self.connection_limiter
        )
        await handler.serve(websocket)

    async def _respond(self, request: Request) -> Response:
        media = _negotiate(request)
        caller = await self.authenticate(request.headers.get("authorization"))
        params = await read_params(request, limit=MAX_BODY_BYTES)
        allowed_types = ALLOWED_OPERATIONS[request.method, media is MediaType.EVENT_STREAM]
        if media is MediaType.EVENT_STREAM:
            return self._stream(params, caller, allowed_types)
        execution = self.runner.execute(params, caller, allowed_types)
        body, operation_type, context = await cancel_on_disconnect(execution, request.receive)
        response = _response(body, media)
        store = request.scope.get(STORE_RESPONSE)
        if store and operation_type is OperationType.QUERY and "errors" not in body:
            store(response, context, caller.expires_at)
        return response

    def _stream(
        self, params: RequestParams, caller: Caller, allowed_types: Collection[OperationType]
    ) -> EventStreamResponse:
        if not self.connection_limiter.acquire(caller.name):
            raise HttpError(
                429, "TOO_MANY_STREAMS", "End some of your streams first.", {"Retry-After": "10"}
            )
        return EventStreamResponse(
            self.runner.stream(params, caller, allowed_types),
            caller=caller,
            shutdown_notifier=self.shutdown_notifier,
            on_close=lambda: self.connection_limiter.release(caller.name),
            headers=RESPONSE_HEADERS,
        )


def _negotiate(request: Request) -> MediaType:
    if request.method not in ("GET", "POST"):
        message = "Send GraphQL by GET or POST."
        if (
            "access-control-request-method" in request.headers
        ):  # a preflight that no origin is allowed for
            message = "Pages of this origin may not call here; add it to BILLING_ALLOWED_ORIGINS."
        raise HttpError(405, "METHOD_NOT_ALLOWED", message, {"Allow": "GET, POST"})
    media = negotiate(",".join(request.headers.getlist("accept")))
    if media is None:
        offered = ", ".join(MediaType)
        raise HttpError(406, "NOT_ACCEPTABLE", f"Answers are written as one of {offered}.")
    return media


def _response(body: ResponseBody, media: MediaType) -> Response:
    if "data" in body:
        status, headers = 200, RESPONSE_HEADERS
    else:
        status, headers = _error_status(body["errors"][0].get("extensions", {}), media)
    return Response(orjson.dumps(body), status, headers, media.content_type)


def _error_status(extensions: dict[str, Any], media: MediaType) -> tuple[int, dict[str, str]]:
    """Return the status and headers for a request error with *extensions*."""
    default = LEGACY_REQUEST_ERROR_STATUS if media is MediaType.JSON else REQUEST_ERROR_STATUS
    headers = dict(RESPONSE_HEADERS)
    if extensions.get("code") == "METHOD_NOT_ALLOWED":
        headers["Allow"] = "POST"
    if "retryAfter" in extensions:
        headers["Retry-After"] = str(extensions["retryAfter"])
    return STATUS_BY_CODE.get(extensions.get("code", ""), default), headers
