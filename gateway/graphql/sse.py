"""GraphQL over Server-Sent Events, distinct connections mode: https://github.com/enisdenjo/graphql-sse.

Lines end in LF alone, because urql splits on nothing else. A reader that does not keep up is waited
for: nothing is queued here.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

import orjson
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from gateway.graphql.responses import Body
from gateway.graphql.shutdown_notifier import Farewell
from gateway.graphql.tasks import stop
from gateway.http import disconnect
from gateway.http.negotiation import MediaType

HEARTBEAT = 15.0
FOREVER = 86_400.0
COMPLETE = b"event: complete\ndata:\n\n"
EXPIRED = {
    "errors": [
        {
            "message": "The token has expired; subscribe again with a new one.",
            "extensions": {"code": "UNAUTHENTICATED"},
        }
    ]
}


class EventStream(Response):
    """Each of *bodies* as an event, until the *until* of the token, or until the server's *farewell*.

    An expired token ends the stream with an error; an ending server just ends it, which is what makes
    clients connect again. *leave* gives its place back when it is over.
    """

    media_type = MediaType.EVENTS.content_type

    def __init__(
        self,
        bodies: AsyncGenerator[Body, None],
        *,
        until: float,
        farewell: Farewell,
        leave: Callable[[], None],
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(headers={**headers, "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._bodies = bodies
        self._until = until
        self._farewell = farewell
        self._leave = leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write events until the first reason to stop."""
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
            self._leave()

    async def _stream(self, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        expiry, ending = loop.create_future(), loop.create_future()
        timer = loop.call_later(self._left(), expiry.set_result, None)
        self._farewell.tell(end := lambda: ending.set_result(None))
        writing, gone, beating = (
            asyncio.create_task(each)
            for each in (self._write(send), disconnect.gone(receive), _beat(send))
        )
        try:
            reasons = [writing, gone, beating, expiry, ending]
            await asyncio.wait(reasons, return_when=asyncio.FIRST_COMPLETED)
            await stop(writing, beating)
            if gone.done():
                return
            last = _event(EXPIRED) + COMPLETE if expiry.done() else b""
            await send({"type": "http.response.body", "body": last, "more_body": False})
        finally:
            timer.cancel()
            self._farewell.forget(end)
            await stop(writing, gone, beating)

    async def _write(self, send: Send) -> None:
        async with aclosing(self._bodies) as bodies:
            async for body in bodies:
                await send(_chunk(_event(body)))
                # Neither a send to somebody who has left nor an eager source gives way by itself.
                await asyncio.sleep(0)
        await send(_chunk(COMPLETE))

    def _left(self) -> float:
        return min(max(self._until - time.time(), 0.0), FOREVER)


async def _beat(send: Send) -> None:
    """Comments, so that no box in between takes the silence for death."""
    while True:
        await asyncio.sleep(HEARTBEAT)
        await send(_chunk(b":\n\n"))


def _event(body: Body) -> bytes:
    return b"event: next\ndata: " + orjson.dumps(body) + b"\n\n"


def _chunk(data: bytes) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": True}
