"""GraphQL over WebSocket: Strawberry's graphql-transport-ws handler, made strict and bounded."""

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
from gateway.graphql.connection_limiter import Places
from gateway.graphql.errors import request_error
from gateway.graphql.frame_adapter import FrameAdapter
from gateway.graphql.request_params import Params
from gateway.graphql.runner import Operations
from gateway.graphql.shutdown_notifier import Farewell
from gateway.graphql.tasks import stop
from gateway.graphql.ws_messages import Complete, ConnectionInit, Ping, Subscribe
from gateway.http.errors import UNAUTHENTICATED, HttpRefusal

log = structlog.get_logger()

INIT_WAIT = timedelta(seconds=10)
MAX_OPERATIONS = 100
# Frames a second that a socket may send for long, and at once.
PACE = 50.0
BURST = 100.0
FOREVER = 86_400.0

UNAUTHORIZED = 4401
# For a token that was refused or has expired: clients may come back with another one, while they
# take 4401 for final.
FORBIDDEN = 4403
INIT_TIMEOUT = 4408
SUBSCRIBER_EXISTS = 4409
TOO_MANY_INITS = 4429
SERVICE_RESTART = 1012
TRY_AGAIN_LATER = 1013
INTERNAL_ERROR = 4500


class Server(Protocol):
    """What a socket needs of the view that it belongs to."""

    operations: Operations
    authenticate: Authenticate
    farewell: Farewell
    places: Places


class Socket(BaseGraphQLTransportWSHandler[Any, None]):
    """One socket: whose it is, how long it may last, and the operations that run on it.

    Each operation has a context of its own. A socket that talks faster than `PACE` is read more
    slowly. It ends with its token, and when the server does.
    """

    view: Server  # type: ignore[assignment]  # Strawberry's is a whole view
    websocket: FrameAdapter
    caller: Caller | None = None

    async def handle(self) -> None:
        """Serve the socket until either side closes it."""
        self._pace = Pace()
        self._closing: asyncio.Task[None] | None = None
        self._stopping: set[asyncio.Task[None]] = set()
        try:
            await super().handle()
        except Exception as fault:  # noqa: BLE001 the last net
            log.error("websocket.fault", fault=type(fault).__name__, at=where(fault))  # noqa: TRY400 its text stays here
            await self.websocket.close(INTERNAL_ERROR, "Something went wrong on our side")

    def on_request_accepted(self) -> None:
        """Wait a while for the token; a timer for each socket costs less than Strawberry's task."""
        wait = self.connection_init_wait_timeout.total_seconds()
        self._close_in(wait, INIT_TIMEOUT, "Connection initialisation timeout")

    async def handle_message(self, message: Any) -> None:
        """Act on one frame."""
        await self._pace.keep()
        if isinstance(message, ConnectionInit):
            await self._open(message)
        elif isinstance(message, Subscribe):
            await self._subscribe(message)
        elif isinstance(message, Complete):
            self._stop(message.id)
        elif isinstance(message, Ping):
            await self.send_message({"type": "pong"})

    async def shutdown(self) -> None:
        """Stop everything that runs on the socket."""
        self._timer.cancel()
        self.view.farewell.forget(self._restart)
        if self.caller:
            self.view.places.leave(self.caller.name)
        for operation_id in list(self.operations):
            self._stop(operation_id)
        await asyncio.gather(stop(*filter(None, [self._closing])), *self._stopping)

    def _stop(self, operation_id: str) -> None:
        """Let an operation's id be used again at once, and see that its task ends."""
        operation = self.operations.pop(operation_id, None)
        if operation and operation.task:
            stopping = asyncio.create_task(stop(operation.task))
            self._stopping.add(stopping)
            stopping.add_done_callback(self._stopping.discard)

    async def _open(self, frame: ConnectionInit) -> None:
        if self.connection_init_received:
            await self.websocket.close(TOO_MANY_INITS, "Too many initialisation requests")
            return
        self.connection_init_received = True
        self._timer.cancel()
        payload = frame.payload or {}
        try:
            caller = await self.view.authenticate(
                payload.get("Authorization") or payload.get("authorization")
            )
        except HttpRefusal as refusal:
            code = FORBIDDEN if refusal.status == UNAUTHENTICATED else TRY_AGAIN_LATER
            await self.websocket.close(code, refusal.message)
            return
        await self._acknowledge(caller)

    async def _acknowledge(self, caller: Caller) -> None:
        if not self.view.places.take(caller.name):
            await self.websocket.close(TRY_AGAIN_LATER, "Too many sockets")
            return
        self.caller = caller
        left = min(max(caller.until - time.time(), 0.0), FOREVER)
        self._close_in(left, FORBIDDEN, "The token has expired; connect with a new one")
        self.view.farewell.tell(self._restart)
        await self.send_message({"type": "connection_ack"})

    async def _subscribe(self, frame: Subscribe) -> None:
        if self.caller is None:
            await self.websocket.close(UNAUTHORIZED, "Unauthorized")
            return
        if frame.id in self.operations:
            await self.websocket.close(
                SUBSCRIBER_EXISTS, f"Subscriber for {frame.id} already exists"
            )
            return
        operation: Operation[Any, None] = Operation(self, frame.id, "", None, None)
        self.operations[frame.id] = operation
        if len(self.operations) > MAX_OPERATIONS:
            full = request_error(
                "TOO_MANY_OPERATIONS", f"A socket runs {MAX_OPERATIONS} at a time."
            )
            await operation.send_initial_errors([full])
            return
        operation.task = asyncio.create_task(self._run(operation, frame.payload, self.caller))

    async def _run(self, operation: Operation[Any, None], params: Params, caller: Caller) -> None:
        bodies = self.view.operations.stream(params, caller, tuple(OperationType))
        with suppress(WebSocketDisconnected):
            async with aclosing(bodies):
                async for body in bodies:
                    if "data" not in body:
                        await self._tell(operation, "error", body["errors"])
                        return
                    await self._tell(operation, "next", body)
                    await asyncio.sleep(0)  # an eager source gives way to nobody by itself
            await self._tell(operation, "complete")

    async def _tell(self, operation: Operation[Any, None], kind: str, payload: Any = None) -> None:
        if self.operations.get(operation.id) is not operation:
            return  # stopped meanwhile; the id may be another one's by now
        content = {} if payload is None else {"payload": payload}
        message = {"id": operation.id, "type": kind, **content}
        await operation.send_operation_message(cast("Message", message))

    def _close_in(self, seconds: float, code: int, reason: str) -> None:
        """Close after so many *seconds*, instead of when was said before."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(seconds, self._close, code, reason)

    def _restart(self) -> None:
        self._close(SERVICE_RESTART, "Service restart")

    def _close(self, code: int, reason: str) -> None:
        self._closing = asyncio.create_task(self.websocket.close(code, reason))


class Pace:
    """Lets `BURST` frames pass at once and `PACE` a second for long; the others wait."""

    def __init__(self) -> None:
        self._left = BURST
        self._at = time.monotonic()

    async def keep(self) -> None:
        """Return when one more frame may pass."""
        now = time.monotonic()
        self._left = min(self._left + (now - self._at) * PACE, BURST) - 1
        self._at = now
        if self._left < 0:
            await asyncio.sleep(-self._left / PACE)
