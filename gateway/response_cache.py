"""Which of the gateway's answers are given again, and for how long: those that only show what stands."""

import asyncio
import sys
import time
from collections.abc import Callable

from billing.cache import Cache
from billing.cache.answers import Answers
from gateway.graphql.keeping import KeptResponse, Key
from resolvers.context import Context

LIFETIME = 30.0  # seconds; so much later than in the cache shows what no webhook told
LEDGER_LIFETIME = 1.0  # seconds; usage may be announced that late
MAKING = 0.05  # seconds; what takes longer waits for Stripe, and nobody else has to wait along


class KeptAnswers:
    """Answers kept under the generations that their loaders saw, verified in *cache* at each use.

    Kept are answers that were made without a call to Stripe, from loaders alone, and from values that
    all still stand; the next who asks is told where they came from as truly as the first was. When one
    no longer stands, whoever asks first makes the next, and those who ask meanwhile wait for that.
    """

    def __init__(self, cache: Callable[[], Cache]) -> None:
        self._cache = cache
        self._answers: Answers[KeptResponse] | None = None
        self._making: dict[Key, asyncio.Event] = {}

    async def find(self, key: Key) -> KeptResponse | None:
        """The answer to *key*, if nothing that it shows has changed; None: make it."""
        if self._answers is None:
            return None
        making = self._making.get(key)
        kept = await self._answers.get(key)
        if kept is not None or key not in self._answers:
            return kept
        if making := making or self._making.get(key):
            await making.wait()
            return await self._answers.get(key)
        self._making[key] = asyncio.Event()
        asyncio.get_running_loop().call_later(MAKING, self._made, key)
        return None

    def keep(self, key: Key, response: KeptResponse, context: Context, until: float) -> None:
        """Keep *response*, which was made with *context*, at most *until* (seconds since 1970)."""
        self._keep(key, response, context, until)
        self._made(key)

    def _keep(self, key: Key, response: KeptResponse, context: Context, until: float) -> None:
        seen, cost = context.loaders.footprint, context.loaders.cost
        if not (seen.sound and seen.generations) or cost.stripe_calls or cost.cache_misses:
            return
        if self._answers is None:
            self._answers = Answers(self._cache())
        lifetime = LEDGER_LIFETIME if seen.ledger else LIFETIME
        self._answers.put(
            key,
            response,
            seen.generations,
            until=min(seen.began + lifetime, time.monotonic() + until - time.time()),
            weight=_weight(key, response, seen.generations),
        )

    def _made(self, key: Key) -> None:
        making = self._making.pop(key, None)
        if making is not None:
            making.set()


def _weight(key: Key, response: KeptResponse, generations: dict[str, bytes]) -> int:
    """About how many bytes an entry takes; strings, bytes and tuples know their own sizes."""
    headers = [text for each in key if isinstance(each, tuple) for text in each]
    parts = [key, *key, *headers, response.body, *generations, *generations.values()]
    return 1_000 + sum(map(sys.getsizeof, parts))
