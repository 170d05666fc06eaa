"""GraphQL over WebSocket: graphql-transport-ws, strict in what it accepts and bounded in what it runs."""

import asyncio
import time
from contextlib import aclosing, suppress
from datetime import timedelta
from typing import Any, Protocol, cast

import structlog
from graphql import OperationType
from strawberry.http.exceptions import WebSocketDisconnected
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import (
    BaseGraphQLTransportWSHandler,
    Operation,
)
from strawberry.subscriptions.protocols.graphql_transport_ws.types import Message

from billing.logs import frames as where
from gateway.auth.caller import Authenticate, Caller
from gateway.graphql.connection_limiter import ConnectionLimiter
from gateway.graphql.errors import request_error
from gateway.graphql.frame_adapter import FrameAdapter
from gateway.graphql.request_params import RequestParams
from gateway.graphql.runner import OperationRunner
from gateway.graphql.shutdown_notifier import ShutdownNotifier
from gateway.graphql.tasks import cancel_and_wait
from gateway.graphql.ws_messages import Complete, ConnectionInit, Ping, Subscribe
from gateway.http.errors import UNAUTHENTICATED, HttpError

log = structlog.get_logger()

INIT_WAIT = timedelta(seconds=10)
MAX_OPERATIONS = 100
# Messages a second that a socket may send continuously, and in one burst.
MESSAGES_PER_SECOND = 50.0
MESSAGE_BURST = 100.0
MAX_LIFETIME_SECONDS = 86_400.0

UNAUTHORIZED = 4401
# For a token that was rejected or has expired: clients reconnect with another one, while 4401 is final
# for them.
FORBIDDEN = 4403
INIT_TIMEOUT = 4408
SUBSCRIBER_EXISTS = 4409
TOO_MANY_INITS = 4429
SERVICE_RESTART = 1012
TRY_AGAIN_LATER = 1013
INTERNAL_ERROR = 4500


class Server(Protocol):
    """The parts of the endpoint that a socket uses."""

    runner: OperationRunner
    authenticate: Authenticate
    shutdown_notifier: ShutdownNotifier
    connection_limiter: ConnectionLimiter


class WebSocketHandler(BaseGraphQLTransportWSHandler[Any, None]):
    """One socket: its caller, its lifetime, and the operations that run on it.

    Each operation has its own context. Messages above `MESSAGES_PER_SECOND` are read later. The socket
    closes when its token expires, and on shutdown.
    """

    view: Server  # type: ignore[assignment]  # Strawberry's is a whole view
    websocket: FrameAdapter
    caller: Caller | None = None

    async def handle(self) -> None:
        """Serve the socket until either side closes it."""
        self._rate_limiter = MessageRateLimiter()
        self._closing: asyncio.Task[None] | None = None
        self._stopping: set[asyncio.Task[None]] = set()
        try:
            await super().handle()
        except Exception as error:  # noqa: BLE001 no traceback may close a socket
            log.error("websocket.fault", fault=type(error).__name__, at=where(error))  # noqa: TRY400 its text may be secret
            await self.websocket.close(INTERNAL_ERROR, "Something went wrong on our side")

    def on_request_accepted(self) -> None:
        """Limit the wait for the token; a timer costs less than Strawberry's task."""
        wait = self.connection_init_wait_timeout.total_seconds()
        self._close_after(wait, INIT_TIMEOUT, "Connection initialisation timeout")

    async def handle_message(self, message: Any) -> None:
        """Handle one message."""
        await self._rate_limiter.acquire()
        if isinstance(message, ConnectionInit):
            await self._init(message)
        elif isinstance(message, Subscribe):
            await self._subscribe(message)
        elif isinstance(message, Complete):
            self._stop(message.id)
        elif isinstance(message, Ping):
            await self.send_message({"type": "pong"})

    async def shutdown(self) -> None:
        """Stop all operations of the socket."""
        self._timer.cancel()
        self.view.shutdown_notifier.unsubscribe(self._on_shutdown)
        if self.caller:
            self.view.connection_limiter.release(self.caller.name)
        for operation_id in list(self.operations):
            self._stop(operation_id)
        await asyncio.gather(cancel_and_wait(*filter(None, [self._closing])), *self._stopping)

    def _stop(self, operation_id: str) -> None:
        """Free an operation's id at once, and cancel its task."""
        operation = self.operations.pop(operation_id, None)
        if operation and operation.task:
            stopping = asyncio.create_task(cancel_and_wait(operation.task))
            self._stopping.add(stopping)
            stopping.add_done_callback(self._stopping.discard)

    async def _init(self, message: ConnectionInit) -> None:
        if self.connection_init_received:
            await self.websocket.close(TOO_MANY_INITS, "Too many initialisation requests")
            return
        self.connection_init_received = True
        self._timer.cancel()
        payload = message.payload or {}
        try:
            caller = await self.view.authenticate(
                payload.get("Authorization") or payload.get("authorization")
            )
        except HttpError as error:
            code = FORBIDDEN if error.status == UNAUTHENTICATED else TRY_AGAIN_LATER
            await self.websocket.close(code, error.message)
            return
        await self._acknowledge(caller)

    async def _acknowledge(self, caller: Caller) -> None:
        if not self.view.connection_limiter.acquire(caller.name):
            await self.websocket.close(TRY_AGAIN_LATER, "Too many sockets")
            return
        self.caller = caller
        remaining = min(max(caller.expires_at - time.time(), 0.0), MAX_LIFETIME_SECONDS)
        self._close_after(remaining, FORBIDDEN, "The token has expired; connect with a new one")
        self.view.shutdown_notifier.subscribe(self._on_shutdown)
        await self.send_message({"type": "connection_ack"})

    async def _subscribe(self, message: Subscribe) -> None:
        if self.caller is None:
            await self.websocket.close(UNAUTHORIZED, "Unauthorized")
            return
        if message.id in self.operations:
            await self.websocket.close(
                SUBSCRIBER_EXISTS, f"Subscriber for {message.id} already exists"
            )
            return
        operation: Operation[Any, None] = Operation(self, message.id, "", None, None)
        self.operations[message.id] = operation
        if len(self.operations) > MAX_OPERATIONS:
            full = request_error(
                "TOO_MANY_OPERATIONS", f"A socket runs {MAX_OPERATIONS} at a time."
            )
            await operation.send_initial_errors([full])
            return
        operation.task = asyncio.create_task(self._run(operation, message.payload, self.caller))

    async def _run(
        self, operation: Operation[Any, None], params: RequestParams, caller: Caller
    ) -> None:
        bodies = self.view.runner.stream(params, caller, tuple(OperationType))
        with suppress(WebSocketDisconnected):
            async with aclosing(bodies):
                async for body in bodies:
                    if "data" not in body:
                        await self._send(operation, "error", body["errors"])
                        return
                    await self._send(operation, "next", body)
                    await asyncio.sleep(0)  # an eager source does not yield to the event loop
            await self._send(operation, "complete")

    async def _send(self, operation: Operation[Any, None], kind: str, payload: Any = None) -> None:
        if self.operations.get(operation.id) is not operation:
            return  # stopped meanwhile; another operation may have the id by now
        content = {} if payload is None else {"payload": payload}
        message = {"id": operation.id, "type": kind, **content}
        await operation.send_operation_message(cast("Message", message))

    def _close_after(self, seconds: float, code: int, reason: str) -> None:
        """Close after *seconds*, in place of an earlier timer."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, self._close, code, reason)

    def _on_shutdown(self) -> None:
        self._close(SERVICE_RESTART, "Service restart")

    def _close(self, code: int, reason: str) -> None:
        self._closing = asyncio.create_task(self.websocket.close(code, reason))


class MessageRateLimiter:
    """Delays messages beyond a burst of `MESSAGE_BURST` and `MESSAGES_PER_SECOND`."""

    def __init__(self) -> None:
        self._available = MESSAGE_BURST
        self._updated_at = time.monotonic()

    async def acquire(self) -> None:
        """Return when one more message may be read."""
        now = time.monotonic()
        self._available = (
            min(self._available + (now - self._updated_at) * MESSAGES_PER_SECOND, MESSAGE_BURST) - 1
        )
        self._updated_at = now
        if self._available < 0:
            await asyncio.sleep(-self._available / MESSAGES_PER_SECOND)
