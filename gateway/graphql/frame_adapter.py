"""A WebSocket that carries frames: strict in what it takes, silent once it is closed."""

from collections.abc import AsyncGenerator, Mapping

import orjson
from starlette.websockets import WebSocketDisconnect, WebSocketState
from strawberry.asgi import ASGIWebSocketAdapter
from strawberry.http.exceptions import WebSocketDisconnected

from gateway.graphql.ws_messages import Frame, frames

MAX_FRAME = 262_144
BAD_REQUEST = 4400


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


def _frame(text: str | None) -> Frame:
    if text is None:
        raise ValueError("Frames are text")
    if len(text) > MAX_FRAME:
        raise ValueError("The frame is too long")
    return frames.decode(text)
