"""The disposable door: what Stripe last answered, served only while nothing has changed since.

An entry is valid under the generations it was loaded under, and no others. A generation is a unique
value, never a counter; a change replaces it (``forget``) and does nothing else, so doubled, late and
shuffled notices are harmless. A load is kept only if the order to make it still stands and its
generations have not moved. Values also live in this process, but every read verifies their
generations in Redis; all reads of one loop tick share that one command.

Redis gone: every read goes to Stripe. Stripe gone: the last known value, marked STALE, for a while.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import structlog

from billing.cache.envelopes import opened, sealed
from billing.cache.memory import Cached, Memory, Source
from billing.cache.server import CacheGone, CacheServer, Filling, Look, State, open_cache_server
from billing.cache.tags import Entry
from billing.cache.tick import Tick
from billing.cache.turns import Turns
from billing.errors import Unavailable

log = structlog.get_logger(__name__)

Load = Callable[[], Awaitable[Any | None]]
Shape = Callable[[Any], Any]
Parts = Callable[[Any], Sequence[tuple[Entry, Any]]]

NOTHING = Look(
    State.MISS, (), "", b"", 0, 0
)  # what is known without Redis; nobody else is told to wait
LONGEST_PAUSE = 0.1  # seconds between looks at another process's load


def _as_is(value: Any) -> Any:
    return value


def _no_parts(_value: Any) -> Sequence[tuple[Entry, Any]]:
    return ()


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How long things last, in seconds, and how much the process may keep, in bytes.

    A value is *fresh*; then *usable* while one reader refreshes it; then known *on_error*, served as
    STALE when Stripe does not answer within *patience*. Absence is believed for *absent* seconds.
    """

    fresh: float = 30
    usable: float = 180
    on_error: float = 3600
    absent: float = 5
    jitter: float = 0.1
    lease: float = 10
    patience: float = 4
    failure_pause: float = 1
    write_intent: float = 60
    process_bytes: int = 64 << 20


@dataclass(frozen=True, slots=True)
class _Ask:
    """What ``fetch`` was asked for."""

    entry: Entry
    load: Load
    shape: Shape
    parts: Parts


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
        self._turns: Turns[Cached] = Turns()
        self._standing: Tick[tuple[str, ...], Mapping[str, bytes]] = Tick(self._verify)
        self._looking: Tick[Entry, Look] = Tick(partial(server.look, lease=policy.lease))

    async def fetch(
        self, entry: Entry, load: Load, *, shape: Shape = _as_is, parts: Parts = _no_parts
    ) -> Cached:
        """The value of *entry*, from *load* (JSON; None: it does not exist) when nothing valid is kept.

        *shape* makes of the JSON what the process keeps: always the same for one entry. *parts* names
        the other entries that a loaded value answers too; a change of any of them has to replace the
        generations of *entry* as well. Raises what *load* raises, unless a last known value may stand
        in for an Unavailable.
        """
        fresh = self._memory.fresh(entry.key)
        if fresh is not None and await self._stands(entry, fresh):
            return fresh
        ask = _Ask(entry, load, shape, parts)
        return await self._turns.take(entry.key, partial(self._turn, ask))

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

    @property
    def process_bytes(self) -> int:
        """How much this process holds, by the weights of ``Memory``."""
        return self._memory.bytes

    async def close(self) -> None:
        """Stop loading."""
        await self._turns.close()

    async def _verify(self, asked: Sequence[tuple[str, ...]]) -> Sequence[Mapping[str, bytes]]:
        names = list({name for each in asked for name in each})
        return [await self._server.standing(names)] * len(asked)

    async def _stands(self, entry: Entry, cached: Cached) -> bool:
        try:
            standing = await self.generations(*entry.generations)
        except CacheGone:
            return False
        return cached.generations == dict(zip(entry.generations, standing, strict=True))

    async def _turn(self, ask: _Ask) -> Cached:
        try:
            look = await self._look(ask)
        except CacheGone:
            look = NOTHING
        if look.state in (State.HIT, State.STALE):
            found = _kept(ask, look)
            if found is not None:
                if look.token:
                    self._turns.start(self._loaded(ask, look))
                return self._remember(ask, look, found)
        if look.state is not State.FAILED:
            return await self._load(ask, look)
        known = self._last_known(ask, look)
        if known is None:
            raise Unavailable("Stripe did not answer a moment ago; ask again.", retry_after=1)
        return known

    async def _look(self, ask: _Ask) -> Look:
        """What Redis has, waiting while another process loads it: at the latest until its lease lapses."""
        patience_ends = time.monotonic() + self._policy.patience
        pause = 0.005
        while True:
            look = await self._looking.ask(ask.entry)
            if look.state is not State.WAIT:
                return look
            if time.monotonic() > patience_ends and self._last_known(ask, look):
                return replace(look, state=State.FAILED)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _load(self, ask: _Ask, look: Look) -> Cached:
        known = self._last_known(ask, look)
        loading = self._turns.start(self._loaded(ask, look))
        try:
            async with asyncio.timeout(self._policy.patience if known else None):
                return await asyncio.shield(loading)
        except (Unavailable, TimeoutError):
            if known is None:
                raise
            return known

    async def _loaded(self, ask: _Ask, look: Look) -> Cached:
        """Load, and keep the value if nothing has changed since *look*; the asker gets it either way."""
        began = datetime.now(UTC)
        try:
            value = await ask.load()
        except BaseException as error:
            await self._give_back(ask.entry, look, error)
            raise
        filling = self._filling(ask, look, value, began)
        standing = NOTHING
        if await self._fill(filling):
            standing = replace(look, fresh=filling.fresh)
        found = Cached(None if value is None else ask.shape(value), Source.STRIPE, began, None)
        return self._remember(ask, replace(standing, kept=filling.value), found)

    async def _give_back(self, entry: Entry, look: Look, error: BaseException) -> None:
        pause = self._policy.failure_pause if isinstance(error, Unavailable) else 0
        with suppress(CacheGone):
            if look.token:
                await self._server.fail(entry, look.token, pause)

    def _filling(self, ask: _Ask, look: Look, value: Any | None, began: datetime) -> Filling:
        policy = self._policy
        others = () if value is None else ask.parts(value)
        fresh = policy.absent if value is None else policy.fresh
        return Filling(
            entry=ask.entry,
            look=look,
            value=sealed(ask.entry, value, began),
            fresh=fresh * random.uniform(1 - policy.jitter, 1 + policy.jitter),  # noqa: S311 spread
            usable=3 * fresh if value is None else policy.usable,
            kept=policy.on_error,
            others=[(other, sealed(other, part, began)) for other, part in others],
        )

    async def _fill(self, filling: Filling) -> bool:
        with suppress(CacheGone):
            return bool(filling.look.token) and await self._server.fill(filling)
        return False

    def _remember(self, ask: _Ask, look: Look, found: Cached) -> Cached:
        """Keep *found* in the process: under *look*'s generations, or only as the last one known."""
        if look.generations:
            standing = dict(zip(ask.entry.generations, look.generations, strict=True))
            found = replace(found, generations=standing)
        self._memory.put(ask.entry.key, found, fresh=look.fresh, json_bytes=len(look.kept))
        return found

    def _last_known(self, ask: _Ask, look: Look) -> Cached | None:
        """The newest value from Redis or the process that is not too old to stand in."""
        known = [_kept(ask, look), self._memory.get(ask.entry.key)]
        oldest = datetime.now(UTC) - timedelta(seconds=self._policy.on_error)
        young = [each for each in known if each is not None and each.fetched_at > oldest]
        newest = max(young, key=lambda each: each.fetched_at, default=None)
        return newest and replace(newest, source=Source.STALE, generations=None)


def _kept(ask: _Ask, look: Look) -> Cached | None:
    """What Redis kept, in its shape."""
    found = opened(ask.entry, look.kept)
    if found is None:
        return None
    value, at = found
    return Cached(None if value is None else ask.shape(value), Source.CACHE, at, None)
