"""GraphQL over WebSocket: Strawberry's graphql-transport-ws handler, made strict and bounded."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from datetime import timedelta
from typing import Any, Protocol, cast

import orjson
import structlog
from graphql import OperationType
from starlette.websockets import WebSocketDisconnect, WebSocketState
from strawberry.asgi import ASGIWebSocketAdapter
from strawberry.http.exceptions import WebSocketDisconnected
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import (
    BaseGraphQLTransportWSHandler,
    Operation,
)
from strawberry.subscriptions.protocols.graphql_transport_ws.types import Message

from billing.logs import frames as where
from gateway.graphql.caller import Authenticate, Caller
from gateway.graphql.errors import request_error
from gateway.graphql.frames import (
    Complete,
    ConnectionInit,
    Frame,
    Ping,
    Subscribe,
    frames,
)
from gateway.graphql.operations import Operations
from gateway.graphql.params import Params
from gateway.graphql.places import Places
from gateway.graphql.stopping import stop
from gateway.refusal import UNAUTHENTICATED, HttpRefusal

log = structlog.get_logger()

INIT_WAIT = timedelta(seconds=10)
MAX_FRAME = 262_144
MAX_OPERATIONS = 100
# Frames a second that a socket may send for long, and at once.
PACE = 50.0
BURST = 100.0
FOREVER = 86_400.0

BAD_REQUEST = 4400
UNAUTHORIZED = 4401
# For a token that was refused or has expired: clients may come back with another one, while they
# take 4401 for final.
FORBIDDEN = 4403
SUBSCRIBER_EXISTS = 4409
TOO_MANY_INITS = 4429
SERVICE_RESTART = 1012
TRY_AGAIN_LATER = 1013
INTERNAL_ERROR = 4500


class FrameAdapter(ASGIWebSocketAdapter):
    """Reads strict frames, and is silent once the socket is closed."""

    async def iter_json(
        self, *, ignore_parsing_errors: bool = False
    ) -> AsyncGenerator[Frame, None]:
        """Each frame that arrives; one that is none closes the socket."""
        del ignore_parsing_errors
        while self._open:
            message = await self.ws.receive()
            if message["type"] == "websocket.disconnect":
                return
            try:
                yield _frame(message.get("text"))
            except (ValueError, RecursionError) as error:
                await self.close(BAD_REQUEST, str(error))
                return

    async def send_json(self, message: Mapping[str, object]) -> None:
        """Send *message* as text."""
        if not self._open:
            raise WebSocketDisconnected
        try:
            await self.ws.send_text(orjson.dumps(message).decode())
        except WebSocketDisconnect as gone:
            raise WebSocketDisconnected from gone

    async def close(self, code: int, reason: str) -> None:
        """Close with *code*; a reason may have 123 bytes."""
        if self._open:
            await self.ws.close(code, reason.encode()[:120].decode(errors="ignore"))

    @property
    def _open(self) -> bool:
        return self.ws.application_state is WebSocketState.CONNECTED


class Server(Protocol):
    """What a socket needs of the view that it belongs to."""

    operations: Operations
    authenticate: Authenticate
    ending: asyncio.Event
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
        self._end: asyncio.Task[None] | None = None
        self._stopping: set[asyncio.Task[None]] = set()
        try:
            await super().handle()
        except Exception as fault:  # noqa: BLE001 the last net
            log.error("websocket.fault", fault=type(fault).__name__, at=where(fault))  # noqa: TRY400 its text stays here
            await self.websocket.close(INTERNAL_ERROR, "Something went wrong on our side")

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
        if self.caller:
            self.view.places.leave(self.caller.name)
        for operation_id in list(self.operations):
            self._stop(operation_id)
        timers = (self._end, self.connection_init_timeout_task)
        await asyncio.gather(stop(*filter(None, timers)), *self._stopping)

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
        self._end = asyncio.create_task(self._close_in_time(caller.until))
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

    async def _close_in_time(self, until: float) -> None:
        """Close when the server ends or the token expires, whichever comes first."""
        left = min(max(until - time.time(), 0.0), FOREVER)
        try:
            await asyncio.wait_for(self.view.ending.wait(), left)
        except TimeoutError:
            await self.websocket.close(FORBIDDEN, "The token has expired; connect with a new one")
        else:
            await self.websocket.close(SERVICE_RESTART, "Service restart")


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


def _frame(text: str | None) -> Frame:
    if text is None:
        raise ValueError("Frames are text")
    if len(text) > MAX_FRAME:
        raise ValueError("The frame is too long")
    return frames.decode(text)
