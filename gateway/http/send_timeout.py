"""Limits how long a client that does not read may hold its connection, its place and a shutdown.

uvicorn waits without end for such a client, both in `send` and in closing. Only its transport can end that: it is
an attribute of the object whose method `send` is, with every protocol of uvicorn's.
"""

import asyncio
from functools import partial

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from billing.deadline import complete_within

SEND_SECONDS = 10.0
SHUTDOWN_SEND_SECONDS = 2.0


class SendTimeout:
    """ASGI middleware around all others: aborts a connection that takes nothing for `SEND_SECONDS`.

    After *shutdown* it has `SHUTDOWN_SEND_SECONDS`. To *app* it looks like a client that disconnected.
    """

    def __init__(self, app: ASGIApp, shutdown: asyncio.Event) -> None:
        self._app = app
        self._shutdown = shutdown

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        # uvloop's transports are no subclasses of asyncio's.
        transport: asyncio.Transport | None = getattr(
            getattr(send, "__self__", None), "transport", None
        )
        if transport is None:
            await self._app(scope, receive, send)
            return
        await self._app(scope, receive, partial(self._send, transport, send))
        if unread := transport.get_write_buffer_size():
            self._abort_later(transport, unread)

    async def _send(self, transport: asyncio.Transport, send: Send, message: Message) -> None:
        try:
            await complete_within(self._seconds, partial(send, message))  # type: ignore[arg-type]
        except TimeoutError:
            transport.abort()
            await send(message)  # as to any client that has disconnected

    def _abort_later(self, transport: asyncio.Transport, unread: int) -> None:
        """Abort unless the client has read some of *unread* bytes when the time is up."""
        asyncio.get_running_loop().call_later(self._seconds, self._check, transport, unread)

    def _check(self, transport: asyncio.Transport, unread: int) -> None:
        left = transport.get_write_buffer_size()
        if left >= unread:
            transport.abort()
        elif left:
            self._abort_later(transport, left)

    @property
    def _seconds(self) -> float:
        return SHUTDOWN_SEND_SECONDS if self._shutdown.is_set() else SEND_SECONDS
