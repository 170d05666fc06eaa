"""Giving a whole answer again: the same token, asking the same in the same words, gets the same bytes.

It is looked for before anything else is done with a request, because only then does a repeated view
cost what a static page does. Whether an answer may be given again is the `Keeper`'s to know.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.graphql.request_params import first_message
from gateway.http.errors import HttpRefusal

TELLING = frozenset({b"authorization", b"accept", b"content-type"})
"""The request headers that an answer depends on."""

Key = tuple[object, ...]

KEY = "gateway.kept_answer"


@dataclass(frozen=True, slots=True)
class KeptResponse:
    """The bytes of a 200."""

    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    @classmethod
    def of(cls, response: Response) -> "KeptResponse":
        """What *response* sends."""
        return cls(tuple(response.raw_headers), bytes(response.body))


class Keeper(Protocol):
    """Keeps answers while they are true."""

    async def find(self, key: Key) -> KeptResponse | None:
        """The answer to *key*, if it still is one."""

    def keep(self, key: Key, response: KeptResponse, context: Any, until: float) -> None:
        """Keep *response*, if what *context* saw allows it, at most *until* (seconds since 1970)."""


class Again:
    """ASGI middleware: gives *keeper*'s answers again, before anything else is done with a request.

    A request at *path* that it cannot answer goes on to *app*, which finds the key in ``scope[KEY]``.
    """

    def __init__(self, app: ASGIApp, keeper: Keeper, path: str) -> None:
        self._app = app
        self._keeper = keeper
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on."""
        if scope["type"] != "http" or scope["path"] != self._path or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        try:
            first = await first_message(receive)
        except HttpRefusal as refusal:
            await refusal.response()(scope, receive, send)
            return
        key = _key(scope, first)
        kept = await self._keeper.find(key) if key else None
        if kept is None:
            scope[KEY] = key
            await self._app(scope, _anew(first, receive), send)
        else:
            await send({"type": "http.response.start", "status": 200, "headers": [*kept.headers]})
            await send({"type": "http.response.body", "body": kept.body})


def _key(scope: Scope, first: Message) -> Key | None:
    """What a request that came in one piece depends on; None for another."""
    if first["type"] != "http.request" or first.get("more_body"):
        return None
    return (*[each for each in scope["headers"] if each[0] in TELLING], first.get("body"))


def _anew(first: Message, receive: Receive) -> Receive:
    unread = [first]

    async def again() -> Message:
        return unread.pop() if unread else await receive()

    return again
