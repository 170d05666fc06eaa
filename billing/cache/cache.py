"""The disposable door: what Stripe last answered, served only while nothing has changed since.

An entry is valid under the generations it was loaded under, and no others. A generation is a unique
value, never a counter; a change replaces it (``forget``) and does nothing else, so doubled, late and
shuffled notices are harmless. A load is kept only if the order to make it still stands and its
generations have not moved. Values also live in this process, but every read verifies their
generations in Redis; all reads of one loop tick share that one command.

Redis gone: every read goes to Stripe. Stripe gone: the last known value, marked STALE, for a while.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog

from billing.cache.batcher import Tick
from billing.cache.entries import Entry
from billing.cache.local_cache import Cached, Memory
from billing.cache.policy import CachePolicy
from billing.cache.read_through import Ask, Keep, Load, Loading, Part, Shape
from billing.cache.redis_backend import CacheGone, CacheServer, open_cache_server

log = structlog.get_logger(__name__)


def _as_is(value: Any) -> Any:
    return value


def _whole(body: Any) -> tuple[Any, Sequence[Part]]:
    return body, ()


@asynccontextmanager
async def open_cache(url: str, policy: CachePolicy | None = None) -> AsyncIterator["Cache"]:
    """A cache over the Redis at *url*, which may be down now and come later."""
    async with open_cache_server(url) as server:
        cache = Cache(server, policy or CachePolicy())
        try:
            yield cache
        finally:
            await cache.close()


class Cache:
    """Answers of Stripe by entry; ``fetch`` reads, ``forget`` says that something changed."""

    def __init__(self, server: CacheServer, policy: CachePolicy) -> None:
        self._server = server
        self._policy = policy
        self._memory = Memory(policy.process_bytes)
        self._loading = Loading(server, policy, self._memory)
        self._standing: Tick[tuple[str, ...], Mapping[str, bytes]] = Tick(self._verify)

    async def fetch(
        self, entry: Entry, load: Load, *, keep: Keep = _whole, shape: Shape = _as_is
    ) -> Cached:
        """The value of *entry*, from *load* (JSON; None: it does not exist) when nothing valid is kept.

        *keep* trims what was loaded to what is kept, and says what other entries it answers too; a
        change of any of them has to replace the generations of *entry* as well. *shape* makes of the
        JSON what the process keeps: always the same for one entry. Raises what *load* raises, unless
        a last known value may stand in for an Unavailable.
        """
        fresh = self._memory.fresh(entry.key)
        if fresh is not None and await self._stands(entry, fresh):
            return fresh
        return await self._loading.bring(Ask(entry, load, keep, shape))

    async def forget(self, *generations: str) -> None:
        """These changed: no read that begins after this shows an older state. CacheGone: say it again."""
        await self._server.forget(generations)

    async def touch(self, *generations: str) -> tuple[str, ...]:
        """As ``forget``, but at most once a second for each; those that were replaced.

        Never raises: what changes this often is kept for a second only (``answers``).
        """
        if not generations:
            return ()
        try:
            replaced = await self._server.forget(generations, enough=1)
        except CacheGone:
            return ()
        return tuple(name for name, done in zip(generations, replaced, strict=True) if done)

    async def intend_write(self, *generations: str) -> None:
        """We are about to change these at Stripe: keep nothing that is loaded meanwhile.

        The intent lapses by itself. Without a cache server the webhook of the change has to do.
        """
        try:
            await self._server.intend(generations, self._policy.write_intent)
        except CacheGone:
            log.warning("cache.intent_lost", generations=generations)

    async def written(self, *generations: str) -> None:
        """The write announced for these is over, whatever came of it."""
        try:
            await self._server.forget(generations, written=True)
        except CacheGone:
            log.warning("cache.written_lost", generations=generations)

    async def generations(self, *names: str) -> tuple[bytes, ...]:
        """The generations standing now; one command for a loop tick. CacheGone: nobody can tell."""
        standing = await self._standing.ask(names)
        return tuple([standing[name] for name in names])

    async def is_on(self, run_id: str) -> bool:
        """Whether the cache lives on the Redis server *run_id*; CacheGone while nobody answers."""
        return await self._server.is_on(run_id)

    @property
    def process_bytes(self) -> int:
        """How much this process holds, by the weights of ``Memory``."""
        return self._memory.bytes

    async def close(self) -> None:
        """Stop loading."""
        await self._loading.close()

    async def _verify(self, asked: Sequence[tuple[str, ...]]) -> Sequence[Mapping[str, bytes]]:
        names = list({name for each in asked for name in each})
        return [await self._server.standing(names)] * len(asked)

    async def _stands(self, entry: Entry, cached: Cached) -> bool:
        try:
            standing = await self.generations(*entry.generations)
        except CacheGone:
            return False
        return cached.generations == dict(zip(entry.generations, standing, strict=True))
