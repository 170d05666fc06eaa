"""A WebSocket of client messages: strict in what it receives, silent once it is closed."""

from collections.abc import AsyncGenerator, Mapping

import orjson
from starlette.websockets import WebSocketDisconnect, WebSocketState
from strawberry.asgi import ASGIWebSocketAdapter
from strawberry.http.exceptions import WebSocketDisconnected

from gateway.graphql.ws_messages import ClientMessage, message_decoder

MAX_MESSAGE_BYTES = 262_144
BAD_REQUEST = 4400


class FrameAdapter(ASGIWebSocketAdapter):
    """Decodes messages strictly; sends nothing once the socket is closed."""

    async def iter_json(
        self, *, ignore_parsing_errors: bool = False
    ) -> AsyncGenerator[ClientMessage, None]:
        """Yield each message; a malformed one closes the socket."""
        del ignore_parsing_errors
        while self._open:
            message = await self.ws.receive()
            if message["type"] == "websocket.disconnect":
                return
            try:
                yield _decode(message.get("text"))
            except (ValueError, RecursionError) as error:
                await self.close(BAD_REQUEST, str(error))
                return

    async def send_json(self, message: Mapping[str, object]) -> None:
        """Send *message* as text."""
        if not self._open:
            raise WebSocketDisconnected
        try:
            await self.ws.send_text(orjson.dumps(message).decode())
        except WebSocketDisconnect as error:
            raise WebSocketDisconnected from error

    async def close(self, code: int, reason: str) -> None:
        """Close with *code*; a reason may have 123 bytes."""
        if self._open:
            await self.ws.close(code, reason.encode()[:120].decode(errors="ignore"))

    @property
    def _open(self) -> bool:
        return self.ws.application_state is WebSocketState.CONNECTED


def _decode(text: str | None) -> ClientMessage:
    if text is None:
        raise ValueError("Frames are text")
    if len(text) > MAX_MESSAGE_BYTES:
        raise ValueError("The frame is too long")
    return message_decoder.decode(text)
