"""What is done when the process has nothing valid: look in Redis, load from Stripe, keep what came.

One flow at a time for an entry in a process, one order to load it in all of them. An order is void once
the entry's generations have moved; what is loaded under a void one goes to its asker and is not kept.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import structlog

from billing.cache.batcher import Tick
from billing.cache.entries import Entry
from billing.cache.envelopes import opened, sealed
from billing.cache.local_cache import Cached, Memory, Source
from billing.cache.lookup import Filling, Look, State
from billing.cache.policy import CachePolicy
from billing.cache.redis_backend import CacheGone, CacheServer
from billing.cache.single_flight import Turns
from billing.errors import Unavailable

log = structlog.get_logger(__name__)

Load = Callable[[], Awaitable[Any | None]]
Shape = Callable[[Any], Any]
Part = tuple[Entry, Any]
Keep = Callable[[Any], tuple[Any, Sequence[Part]]]

# What is known without Redis; nobody else is told to wait.
NOTHING = Look(State.MISS, (), "", b"", 0, 0)
LONGEST_PAUSE = 0.1  # seconds between looks at another process's load


@dataclass(frozen=True, slots=True)
class Ask:
    """What ``Cache.fetch`` was asked for."""

    entry: Entry
    load: Load
    keep: Keep
    shape: Shape


class Loading:
    """Brings entries into *memory*, from *server* or by loading them."""

    def __init__(self, server: CacheServer, policy: CachePolicy, memory: Memory) -> None:
        self._server = server
        self._policy = policy
        self._memory = memory
        self._turns: Turns[Cached] = Turns()
        self._looking: Tick[Entry, Look] = Tick(partial(server.look, lease=policy.lease))
        self._glancing: Tick[Entry, Look] = Tick(server.look)

    async def bring(self, ask: Ask) -> Cached:
        """The value, by what begins after this call; raises as ``Cache.fetch`` does.

        Nearly always Redis has what the process never had: a look that orders nothing leaves nobody
        waiting when its asker is cancelled, so it needs no flow of its own.
        """
        held = self._memory.get(ask.entry.key)  # and it changed: Redis will not have it either
        found = None if held else await self._glance(ask)
        return found or await self._turns.take(ask.entry.key, partial(self._turn, ask))

    async def close(self) -> None:
        """Stop loading."""
        await self._turns.close()

    async def _glance(self, ask: Ask) -> Cached | None:
        """What Redis has, if it is fresh."""
        try:
            look = await self._glancing.ask(ask.entry)
        except CacheGone:
            return None
        found = _kept(ask, look) if look.state is State.HIT else None
        return found and self._remember(ask, look, found)

    async def _turn(self, ask: Ask) -> Cached:
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

    async def _look(self, ask: Ask) -> Look:
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

    async def _load(self, ask: Ask, look: Look) -> Cached:
        known = self._last_known(ask, look)
        loading = self._turns.start(self._loaded(ask, look))
        try:
            async with asyncio.timeout(self._policy.patience if known else None):
                return await asyncio.shield(loading)
        except (Unavailable, TimeoutError):
            if known is None:
                raise
            return known

    async def _loaded(self, ask: Ask, look: Look) -> Cached:
        """Load, and keep the value if nothing has changed since *look*; the asker gets it either way."""
        began = datetime.now(UTC)
        try:
            body = await ask.load()
            value, parts = (None, ()) if body is None else ask.keep(body)
        except BaseException as error:
            await self._give_back(ask.entry, look, error)
            raise
        filling = self._filling(ask, look, value, parts, began)
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

    def _filling(
        self, ask: Ask, look: Look, value: Any | None, parts: Sequence[Part], began: datetime
    ) -> Filling:
        policy = self._policy
        fresh = policy.absent if value is None else ask.entry.fresh or policy.fresh
        return Filling(
            entry=ask.entry,
            look=look,
            value=sealed(ask.entry, value, began),
            fresh=fresh * random.uniform(1 - policy.jitter, 1 + policy.jitter),  # noqa: S311 spread
            usable=max(3 * fresh, 0 if value is None else policy.usable),
            kept=policy.on_error,
            others=[(other, sealed(other, part, began)) for other, part in parts],
        )

    async def _fill(self, filling: Filling) -> bool:
        with suppress(CacheGone):
            return bool(filling.look.token) and await self._server.fill(filling)
        return False

    def _remember(self, ask: Ask, look: Look, found: Cached) -> Cached:
        """Keep *found* in the process: under *look*'s generations, or only as the last one known."""
        if look.generations:
            standing = dict(zip(ask.entry.generations, look.generations, strict=True))
            found = Cached(found.value, found.source, found.fetched_at, standing)
        self._memory.put(ask.entry.key, found, fresh=look.fresh, json_bytes=len(look.kept))
        return found

    def _last_known(self, ask: Ask, look: Look) -> Cached | None:
        """The newest value from Redis or the process that is not too old to stand in."""
        known = [_kept(ask, look), self._memory.get(ask.entry.key)]
        oldest = datetime.now(UTC) - timedelta(seconds=self._policy.on_error)
        young = [each for each in known if each is not None and each.fetched_at > oldest]
        newest = max(young, key=lambda each: each.fetched_at, default=None)
        return newest and replace(newest, source=Source.STALE, generations=None)


def _kept(ask: Ask, look: Look) -> Cached | None:
    """What Redis kept, in its shape; None also for what another version kept, which reads other fields."""
    found = opened(ask.entry, look.kept)
    if found is None:
        return None
    value, at = found
    try:
        shaped = None if value is None else ask.shape(value)
    except (KeyError, TypeError, ValueError) as error:
        log.warning("cache.unreadable", key=ask.entry.key, error=type(error).__name__)
        return None
    return Cached(shaped, Source.CACHE, at, None)
