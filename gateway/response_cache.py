"""Response cache: an identical request (token, headers, body) gets the stored bytes.

It is consulted before routing and authentication, so that a repeated view costs about as much as a
static page. A response is stored if it was made without a call to Stripe, through the dataloaders
alone and from values that were all current. Before each use Redis must confirm that the generations
it depends on are unchanged; the checks of one event loop tick share one command.
"""

import asyncio
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from billing.cache import Cache
from billing.cache.redis_backend import CacheUnavailable
from billing.cache.swept_cache import SweptCache
from gateway.graphql.http import STORE_RESPONSE
from gateway.http.body import read_first_message, replay
from gateway.http.errors import HttpError
from resolvers.context import Context

MAX_AGE = 30.0  # seconds; bounds the age of a change at Stripe whose webhook was lost
LEDGER_MAX_AGE = 1.0  # seconds; usage may be published that late
STORED_SECONDS = 2 * MAX_AGE  # an outdated response shows that its request is repeated
WAIT_SECONDS = 0.05  # for a response that another request computes; a longer one waits for Stripe
VARY_HEADERS = frozenset({b"authorization", b"accept", b"content-type", b"content-encoding"})

CacheKey = tuple[object, ...]
"""The headers that a response depends on, and the body of its request."""


class StoredResponse(NamedTuple):
    """The headers and body of a 200, with the generations under which it is valid."""

    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    generations: dict[str, bytes]
    expires_at: float  # monotonic seconds
    size: int  # bytes, approximately, with its key


class ResponseCache:
    """At most *limit* bytes of responses, verified in *cache* at each use.

    When a stored response has become outdated, the first request for it computes the next one, and
    concurrent requests wait for that.
    """

    def __init__(self, cache: Callable[[], Cache], limit: int = 64 << 20) -> None:
        self._cache = cache
        self._responses: SweptCache[CacheKey, StoredResponse] = SweptCache(
            limit, STORED_SECONDS, lambda stored: stored.size
        )
        self._in_progress: dict[CacheKey, asyncio.Event] = {}

    async def get(self, key: CacheKey) -> StoredResponse | None:
        """Return the response to *key* if it is current; None when the caller has to compute it."""
        in_progress = self._in_progress.get(key)
        response = await self._get_current(key)
        if response is not None or key not in self._responses:
            return response
        if in_progress := in_progress or self._in_progress.get(key):
            await in_progress.wait()
            return await self._get_current(key)
        self._in_progress[key] = asyncio.Event()
        asyncio.get_running_loop().call_later(WAIT_SECONDS, self._finish, key)
        return None

    async def _get_current(self, key: CacheKey) -> StoredResponse | None:
        stored = self._responses.get(key)
        if stored is None or time.monotonic() >= stored.expires_at:
            return None
        try:
            current = await self._cache().generations(*stored.generations)
        except CacheUnavailable:
            return None
        return stored if current == tuple(stored.generations.values()) else None

    def store(self, key: CacheKey, response: Response, context: Context, expires_at: float) -> None:
        """Store *response* at most until *expires_at* (Unix seconds), if *context* shows that it may be."""
        dependencies, stats = context.loaders.dependencies, context.loaders.stats
        storable = dependencies.cacheable and dependencies.generations
        if storable and not (stats.stripe_calls or stats.cache_misses):
            max_age = LEDGER_MAX_AGE if dependencies.includes_ledger else MAX_AGE
            until = min(
                dependencies.started_at + max_age, time.monotonic() + expires_at - time.time()
            )
            body, generations = bytes(response.body), dict(dependencies.generations)
            size = _size(key, body, generations)
            if size <= self._responses.maxsize:
                headers = tuple(response.raw_headers)
                self._responses[key] = StoredResponse(headers, body, generations, until, size)
        self._finish(key)

    def _finish(self, key: CacheKey) -> None:
        if in_progress := self._in_progress.pop(key, None):
            in_progress.set()


def _size(key: CacheKey, body: bytes, generations: dict[str, bytes]) -> int:
    headers = [text for header in key if isinstance(header, tuple) for text in header]
    parts = [key, *key, *headers, body, *generations, *generations.values()]
    return 1_000 + sum(map(sys.getsizeof, parts))  # the response's own headers are about 1 kB


class ResponseCacheMiddleware:
    """ASGI middleware: answers POSTs to *path* from *cache*, passes all other requests to *app*."""

    def __init__(self, app: ASGIApp, cache: ResponseCache, path: str) -> None:
        self._app = app
        self._cache = cache
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http" or scope["path"] != self._path or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        try:
            first = await read_first_message(receive)
        except HttpError as error:
            await error.response()(scope, receive, send)
            return
        key = _cache_key(scope, first)
        response = await self._cache.get(key) if key else None
        if response is None:
            scope[STORE_RESPONSE] = partial(self._cache.store, key) if key else None
            await self._app(scope, replay(first, receive), send)
        else:
            headers = [*response.headers]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": response.body})


def _cache_key(scope: Scope, first: Message) -> CacheKey | None:
    """Return the key of a request whose body came in one message; None for any other."""
    if first["type"] != "http.request" or first.get("more_body"):
        return None
    headers = [header for header in scope["headers"] if header[0] in VARY_HEADERS]
    return (*headers, first.get("body"))
