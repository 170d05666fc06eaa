"""GraphQL over WebSocket: graphql-transport-ws, strict in what it accepts and bounded in what it runs."""

import asyncio
import time
from contextlib import aclosing, suppress
from typing import Any

import orjson
import structlog
from graphql import OperationType
from starlette.datastructures import Headers
from starlette.websockets import (
    WebSocket,
    WebSocketDisconnect,
    WebSocketDisconnected,
    WebSocketState,
)
from strawberry.http.websocket_origin import is_same_origin, normalize_origin

from billing.logs import frames
from gateway.auth.caller import Authenticate, Caller
from gateway.graphql import ws_messages
from gateway.graphql.connection_limiter import ANONYMOUS, ConnectionLimiter
from gateway.graphql.errors import request_error
from gateway.graphql.runner import OperationRunner
from gateway.graphql.shutdown_notifier import ShutdownNotifier
from gateway.graphql.tasks import cancel_and_wait
from gateway.graphql.ws_messages import CloseCode
from gateway.http.errors import UNAUTHENTICATED, HttpError

log = structlog.get_logger()

SUBPROTOCOL = "graphql-transport-ws"
INIT_TIMEOUT_SECONDS = 10.0
MAX_OPERATIONS = 100
# Messages a second that a socket may send continuously, and in one burst.
MESSAGES_PER_SECOND = 50.0
MESSAGE_BURST = 100.0
SOCKET_CLOSED = (WebSocketDisconnect, WebSocketDisconnected)


def is_origin_allowed(headers: Headers, allowed: frozenset[str]) -> bool:
    """True if the page that opens a socket is of the same origin or *allowed*; only browsers send Origin."""
    origin = headers.get("origin")
    return (
        origin is None
        or headers.get("sec-fetch-site") == "same-origin"
        or is_same_origin(origin, headers.get("host"))
        or not allowed.isdisjoint({"*", normalize_origin(origin)})
    )


class WebSocketHandler:
    """Serves one socket: its caller, its lifetime, and the operations that run on it.

    Each operation has its own context. Messages above `MESSAGES_PER_SECOND` are read later. The socket
    closes when its token expires, and on shutdown.
    """

    def __init__(
        self,
        runner: OperationRunner,
        authenticate: Authenticate,
        shutdown_notifier: ShutdownNotifier,
        connection_limiter: ConnectionLimiter,
    ) -> None:
        self._runner = runner
        self._authenticate = authenticate
        self._shutdown_notifier = shutdown_notifier
        self._connection_limiter = connection_limiter
        self._rate_limiter = MessageRateLimiter()
        self._init_received = False
        self._caller: Caller | None = None
        self._place: str | None = None
        self._operations: dict[str, asyncio.Task[None]] = {}
        self._cancellations: set[asyncio.Task[None]] = set()
        self._closing: asyncio.Task[None] | None = None

    async def serve(self, websocket: WebSocket) -> None:
        """Serve *websocket* until either side closes it."""
        self._websocket = websocket
        supported = SUBPROTOCOL in websocket["subprotocols"]
        await websocket.accept(SUBPROTOCOL if supported else None)
        if not supported:
            await self._close(CloseCode.SUBPROTOCOL_NOT_ACCEPTABLE, "Subprotocol not acceptable")
            return
        if not self._move(ANONYMOUS):
            await self._close(CloseCode.TRY_AGAIN_LATER, "Too many sockets")
            return
        reason = "Connection initialisation timeout"
        self._close_after(INIT_TIMEOUT_SECONDS, CloseCode.INIT_TIMEOUT, reason)
        try:
            await self._receive_messages()
        except SOCKET_CLOSED:
            pass
        except ws_messages.MalformedMessage as error:
            await self._close(CloseCode.BAD_REQUEST, str(error))
        except Exception as error:  # noqa: BLE001 no traceback may close a socket
            log.error("websocket.fault", fault=type(error).__name__, at=frames(error))  # noqa: TRY400 its text may be secret
            await self._close(CloseCode.INTERNAL_ERROR, "Something went wrong on our side")
        finally:
            await self._clean_up()

    async def _receive_messages(self) -> None:
        while self._websocket.application_state is WebSocketState.CONNECTED:
            event = await self._websocket.receive()
            if event["type"] == "websocket.disconnect":
                return
            message = ws_messages.decode(event.get("text"))
            await self._rate_limiter.acquire()
            await self._handle(message)

    async def _handle(self, message: ws_messages.ClientMessage) -> None:
        match message:
            case ws_messages.ConnectionInit():
                await self._init(message.payload or {})
            case ws_messages.Subscribe():
                await self._subscribe(message)
            case ws_messages.Complete():
                self._stop(message.id)
            case ws_messages.Ping():
                await self._send({"type": "pong"})

    async def _init(self, payload: dict[str, Any]) -> None:
        if self._init_received:
            await self._close(CloseCode.TOO_MANY_INITS, "Too many initialisation requests")
            return
        self._init_received = True
        self._timer.cancel()
        authorization = (
            payload.get("Authorization")
            or payload.get("authorization")
            or self._websocket.headers.get("authorization")  # of clients other than browsers
        )
        try:
            caller = await self._authenticate(authorization)
        except HttpError as error:
            rejected = error.status == UNAUTHENTICATED
            code = CloseCode.FORBIDDEN if rejected else CloseCode.TRY_AGAIN_LATER
            await self._close(code, error.message)
            return
        if not self._move(caller.name):
            await self._close(CloseCode.TRY_AGAIN_LATER, "Too many sockets")
            return
        self._caller = caller
        if caller.outlives_connection():
            self._close_after(
                caller.remaining_seconds(), CloseCode.SERVICE_RESTART, "Connect again"
            )
        else:
            reason = "The token has expired; connect with a new one"
            self._close_after(caller.remaining_seconds(), CloseCode.FORBIDDEN, reason)
        self._shutdown_notifier.subscribe(self._on_shutdown)
        await self._send({"type": "connection_ack"})

    def _move(self, caller: str | None) -> bool:
        """Take a place among *caller*'s connections in place of the present one; False if there is none."""
        if self._place is not None:
            self._connection_limiter.release(self._place)
        taken = caller is not None and self._connection_limiter.acquire(caller)
        self._place = caller if taken else None
        return taken

    async def _subscribe(self, message: ws_messages.Subscribe) -> None:
        if self._caller is None:
            await self._close(CloseCode.UNAUTHORIZED, "Unauthorized")
        elif message.id in self._operations:
            reason = f"Subscriber for {message.id} already exists"
            await self._close(CloseCode.SUBSCRIBER_EXISTS, reason)
        elif len(self._operations) >= MAX_OPERATIONS:
            error = request_error(
                "TOO_MANY_OPERATIONS", f"A socket runs {MAX_OPERATIONS} at a time."
            )
            await self._send({"id": message.id, "type": "error", "payload": [error.formatted]})
        else:
            self._operations[message.id] = asyncio.create_task(self._run(message, self._caller))

    async def _run(self, message: ws_messages.Subscribe, caller: Caller) -> None:
        bodies = self._runner.stream(message.payload, caller, tuple(OperationType))
        with suppress(*SOCKET_CLOSED):
            async with aclosing(bodies):
                async for body in bodies:
                    if "data" not in body:
                        await self._send_result(message.id, "error", payload=body["errors"])
                        return
                    await self._send_result(message.id, "next", payload=body)
                    await asyncio.sleep(0)  # an eager source does not yield to the event loop
            await self._send_result(message.id, "complete")

    async def _send_result(self, operation_id: str, type_: str, **payload: Any) -> None:
        """Send a message of the current task's operation, unless it was stopped meanwhile."""
        if self._operations.get(operation_id) is asyncio.current_task():
            if type_ != "next":
                del self._operations[operation_id]  # its id may be used again
            await self._send({"id": operation_id, "type": type_, **payload})

    async def _send(self, message: dict[str, Any]) -> None:
        await self._websocket.send_text(orjson.dumps(message).decode())

    def _stop(self, operation_id: str) -> None:
        """Free an operation's id at once, and cancel its task."""
        operation = self._operations.pop(operation_id, None)
        if operation is not None:
            cancellation = asyncio.create_task(cancel_and_wait(operation))
            self._cancellations.add(cancellation)
            cancellation.add_done_callback(self._cancellations.discard)

    def _close_after(self, seconds: float, code: CloseCode, reason: str) -> None:
        """Close after *seconds*, in place of an earlier timer."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, self._close_soon, code, reason)

    def _on_shutdown(self) -> None:
        self._close_soon(CloseCode.SERVICE_RESTART, "Service restart")

    def _close_soon(self, code: CloseCode, reason: str) -> None:
        self._closing = asyncio.create_task(self._close(code, reason))

    async def _close(self, code: CloseCode, reason: str) -> None:
        """Close the socket if it is open; a reason may have 123 bytes."""
        with suppress(*SOCKET_CLOSED):
            await self._websocket.close(code, reason.encode()[:120].decode(errors="ignore"))

    async def _clean_up(self) -> None:
        """Stop all operations and release the caller's connection."""
        self._timer.cancel()
        self._shutdown_notifier.unsubscribe(self._on_shutdown)
        self._move(None)
        for operation_id in list(self._operations):
            self._stop(operation_id)
        await asyncio.gather(cancel_and_wait(*filter(None, [self._closing])), *self._cancellations)


class MessageRateLimiter:
    """Delays messages beyond a burst of `MESSAGE_BURST` and `MESSAGES_PER_SECOND`."""

    def __init__(self) -> None:
        self._available = MESSAGE_BURST
        self._updated_at = time.monotonic()

    async def acquire(self) -> None:
        """Return when one more message may be handled."""
        now = time.monotonic()
        refilled = self._available + (now - self._updated_at) * MESSAGES_PER_SECOND
        self._available = min(refilled, MESSAGE_BURST) - 1
        self._updated_at = now
        if self._available < 0:
            await asyncio.sleep(-self._available / MESSAGES_PER_SECOND)
