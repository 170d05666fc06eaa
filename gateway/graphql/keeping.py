"""Giving a whole answer again: the same token, asking the same in the same words, gets the same bytes.

It is looked for before anything else is done with a request, because only then does a repeated view
cost what a static page does. Whether an answer may be given again is the `Keeper`'s to know.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.graphql.request_params import read_first_message
from gateway.http.errors import HttpError

VARY_HEADERS = frozenset({b"authorization", b"accept", b"content-type"})
"""The request headers that an answer depends on."""

CacheKey = tuple[object, ...]

SCOPE_KEY = "gateway.kept_answer"


@dataclass(frozen=True, slots=True)
class CachedResponse:
    """The bytes of a 200."""

    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    @classmethod
    def from_response(cls, response: Response) -> "CachedResponse":
        """What *response* sends."""
        return cls(tuple(response.raw_headers), bytes(response.body))


class ResponseStore(Protocol):
    """Keeps answers while they are true."""

    async def get(self, key: CacheKey) -> CachedResponse | None:
        """The answer to *key*, if it still is one."""

    def store(self, key: CacheKey, response: CachedResponse, context: Any, until: float) -> None:
        """Keep *response*, if what *context* saw allows it, at most *until* (seconds since 1970)."""


class ResponseCacheMiddleware:
    """ASGI middleware: gives *keeper*'s answers again, before anything else is done with a request.

    A request at *path* that it cannot answer goes on to *app*, which finds the key in ``scope[KEY]``.
    """

    def __init__(self, app: ASGIApp, store: ResponseStore, path: str) -> None:
        self._app = app
        self._keeper = store
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on."""
        if scope["type"] != "http" or scope["path"] != self._path or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        try:
            first = await read_first_message(receive)
        except HttpError as refusal:
            await refusal.response()(scope, receive, send)
            return
        key = _key(scope, first)
        kept = await self._keeper.get(key) if key else None
        if kept is None:
            scope[SCOPE_KEY] = key
            await self._app(scope, _replay(first, receive), send)
        else:
            await send({"type": "http.response.start", "status": 200, "headers": [*kept.headers]})
            await send({"type": "http.response.body", "body": kept.body})


def _key(scope: Scope, first: Message) -> CacheKey | None:
    """What a request that came in one piece depends on; None for another."""
    if first["type"] != "http.request" or first.get("more_body"):
        return None
    return (*[each for each in scope["headers"] if each[0] in VARY_HEADERS], first.get("body"))


def _replay(first: Message, receive: Receive) -> Receive:
    unread = [first]

    async def again() -> Message:
        return unread.pop() if unread else await receive()

    return again
