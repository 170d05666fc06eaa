"""Which of the gateway's answers are given again, and for how long: those that only show what stands."""

import asyncio
import sys
import time
from collections.abc import Callable

from billing.cache import Cache
from billing.cache.answers import ResponseStore
from gateway.graphql.keeping import CachedResponse, CacheKey
from resolvers.context import Context

MAX_AGE = 30.0  # seconds; so much later than in the cache shows what no webhook told
LEDGER_MAX_AGE = 1.0  # seconds; usage may be announced that late
COALESCE_SECONDS = (
    0.05  # seconds; what takes longer waits for Stripe, and nobody else has to wait along
)


class ResponseCache:
    """Answers kept under the generations that their loaders saw, verified in *cache* at each use.

    Kept are answers that were made without a call to Stripe, from loaders alone, and from values that
    all still stand; the next who asks is told where they came from as truly as the first was. When one
    no longer stands, whoever asks first makes the next, and those who ask meanwhile wait for that.
    """

    def __init__(self, cache: Callable[[], Cache]) -> None:
        self._cache = cache
        self._entries: ResponseStore[CachedResponse] | None = None
        self._in_progress: dict[CacheKey, asyncio.Event] = {}

    async def get(self, key: CacheKey) -> CachedResponse | None:
        """The answer to *key*, if nothing that it shows has changed; None: make it."""
        if self._entries is None:
            return None
        making = self._in_progress.get(key)
        kept = await self._entries.get(key)
        if kept is not None or key not in self._entries:
            return kept
        if making := making or self._in_progress.get(key):
            await making.wait()
            return await self._entries.get(key)
        self._in_progress[key] = asyncio.Event()
        asyncio.get_running_loop().call_later(COALESCE_SECONDS, self._finish, key)
        return None

    def store(
        self, key: CacheKey, response: CachedResponse, context: Context, until: float
    ) -> None:
        """Keep *response*, which was made with *context*, at most *until* (seconds since 1970)."""
        self._store(key, response, context, until)
        self._finish(key)

    def _store(
        self, key: CacheKey, response: CachedResponse, context: Context, until: float
    ) -> None:
        seen, cost = context.loaders.dependencies, context.loaders.stats
        if not (seen.cacheable and seen.generations) or cost.stripe_calls or cost.cache_misses:
            return
        if self._entries is None:
            self._entries = ResponseStore(self._cache())
        lifetime = LEDGER_MAX_AGE if seen.includes_ledger else MAX_AGE
        self._entries.put(
            key,
            response,
            seen.generations,
            expires_at=min(seen.started_at + lifetime, time.monotonic() + until - time.time()),
            weight=_weight(key, response, seen.generations),
        )

    def _finish(self, key: CacheKey) -> None:
        making = self._in_progress.pop(key, None)
        if making is not None:
            making.set()


def _weight(key: CacheKey, response: CachedResponse, generations: dict[str, bytes]) -> int:
    """About how many bytes an entry takes; strings, bytes and tuples know their own sizes."""
    headers = [text for each in key if isinstance(each, tuple) for text in each]
    parts = [key, *key, *headers, response.body, *generations, *generations.values()]
    return 1_000 + sum(map(sys.getsizeof, parts))
