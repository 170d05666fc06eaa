"""GraphQL over Server-Sent Events, distinct connections mode: https://github.com/enisdenjo/graphql-sse.

Lines end in LF alone, because urql splits on nothing else. Nothing is queued here: a slow reader
delays the next event.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

import orjson
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from gateway.auth.caller import Caller
from gateway.graphql.responses import ResponseBody
from gateway.graphql.shutdown_notifier import ShutdownNotifier
from gateway.graphql.tasks import cancel_and_wait
from gateway.http.disconnect import wait_for_disconnect
from gateway.http.negotiation import MediaType

HEARTBEAT_SECONDS = 15.0
COMPLETE_EVENT = b"event: complete\ndata:\n\n"
TOKEN_EXPIRED = {
    "errors": [
        {
            "message": "The token has expired; subscribe again with a new one.",
            "extensions": {"code": "UNAUTHENTICATED"},
        }
    ]
}


class EventStreamResponse(Response):
    """Sends *bodies* as events until *caller*'s connection must end, or the server shuts down.

    An expired token ends the stream with an error. A shutdown, and the end of a day under a token that is
    still valid, end it without a complete event, which makes clients reconnect. *on_close* is called once it is over.
    """

    media_type = MediaType.EVENT_STREAM.content_type

    def __init__(
        self,
        bodies: AsyncGenerator[ResponseBody, None],
        *,
        caller: Caller,
        shutdown_notifier: ShutdownNotifier,
        on_close: Callable[[], None],
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(headers={**headers, "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._bodies = bodies
        self._lifetime = caller.remaining_seconds()
        self._outlived = caller.outlives_connection()
        self._shutdown_notifier = shutdown_notifier
        self._on_close = on_close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the head, then events until the stream ends."""
        del scope
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            await self._stream(receive, send)
        finally:
            self._on_close()

    async def _stream(self, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        expiry, shutdown = loop.create_future(), loop.create_future()
        timer = loop.call_later(self._lifetime, expiry.set_result, None)
        self._shutdown_notifier.subscribe(on_shutdown := lambda: shutdown.set_result(None))
        events, disconnect, heartbeats = (
            asyncio.create_task(coroutine)
            for coroutine in (
                self._send_events(send),
                wait_for_disconnect(receive),
                _send_heartbeats(send),
            )
        )
        try:
            await asyncio.wait(
                [events, disconnect, heartbeats, expiry, shutdown],
                return_when=asyncio.FIRST_COMPLETED,
            )
            await cancel_and_wait(events, heartbeats)
            if disconnect.done():
                return
            expired = expiry.done() and not self._outlived
            last = _encode_event(TOKEN_EXPIRED) + COMPLETE_EVENT if expired else b""
            await send({"type": "http.response.body", "body": last, "more_body": False})
        finally:
            timer.cancel()
            self._shutdown_notifier.unsubscribe(on_shutdown)
            await cancel_and_wait(events, disconnect, heartbeats)

    async def _send_events(self, send: Send) -> None:
        async with aclosing(self._bodies) as bodies:
            async for body in bodies:
                await send(_chunk(_encode_event(body)))
                # Neither a send to a closed connection nor an eager source yields to the event loop.
                await asyncio.sleep(0)
        await send(_chunk(COMPLETE_EVENT))


async def _send_heartbeats(send: Send) -> None:
    """Send comments, so that no proxy takes a silent connection for a dead one."""
    while True:
        await asyncio.sleep(HEARTBEAT_SECONDS)
        await send(_chunk(b":\n\n"))


def _encode_event(body: ResponseBody) -> bytes:
    return b"event: next\ndata: " + orjson.dumps(body) + b"\n\n"


def _chunk(data: bytes) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": True}
