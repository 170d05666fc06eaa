"""How an operation reads: through the cache, noting what it cost and what its answer depends on."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from billing.budget import Lane
from billing.cache import entries
from billing.cache.entries import Entry
from billing.cache.local_cache import Cached, Source
from billing.cache.redis_backend import CacheGone
from billing.errors import ErrorCode, Refused, StripeRejected
from billing.services import Services
from billing.stripe import Tally, tally
from resolvers.dataloaders.stripe_queries import Body, Get, Parts

GONE = frozenset({400, 404})  # Stripe's answers to an id, or a cursor, that it does not know
NOT_FOUND = 404
CURSORS = {"starting_after": "after", "ending_before": "before"}


@dataclass(slots=True)
class Cost:
    """What an operation cost so far: calls to Stripe, and entries served from where.

    *hidden* are the calls made for what may not be seen; their number would tell of it. *in_vain* counts
    those for a page that begins nowhere.
    """

    stripe_calls: int = 0
    cache_hits: int = 0
    cache_misses: int = 0
    stale: int = 0
    in_vain: int = 0
    hidden: list[Tally] = field(default_factory=list)

    def count(self, cached: Cached, calls: int) -> None:
        """Add one entry, for which Stripe was called *calls* times."""
        self.stripe_calls += calls
        self.cache_hits += cached.source is Source.CACHE
        self.cache_misses += cached.source is Source.STRIPE
        self.stale += cached.source is Source.STALE


@dataclass(slots=True)
class Footprint:
    """The *generations* under which everything read so far is valid; not *sound*: something has none.

    *ledger*: it includes what the ledger knows, whose generation moves once a second at most. *began*
    by the monotonic clock: nothing was read before.
    """

    began: float = field(default_factory=time.monotonic)
    generations: dict[str, bytes] = field(default_factory=dict)
    sound: bool = True
    ledger: bool = False

    def add(self, generations: Mapping[str, bytes] | None) -> None:
        """Depend on *generations* as well."""
        if generations is None:
            self.sound = False
            return
        for name, value in generations.items():
            if self.generations.setdefault(name, value) != value:
                self.sound = False


class Reading:
    """Reads for one operation, on behalf of *lane*."""

    def __init__(self, services: Services, lane: Lane, cost: Cost | None = None) -> None:
        self.services = services
        self.cost = cost or Cost()
        self.footprint = Footprint()
        self._lane = lane

    async def get(self, get: Get) -> Cached:
        """What Stripe has, as fresh as the cache promises; value None: it has nothing under this id."""
        cached, _ = await self.get_with_parts(get)
        return cached

    async def get_with_parts(self, get: Get) -> tuple[Cached, Parts]:
        """As `get`, and the other entries that came along, if Stripe was read for it just now."""
        loads: list[Tally] = []
        came: list[tuple[Entry, Any]] = []

        async def load() -> Body | None:
            with tally() as sent:
                loads.append(sent)
                return await self._read(get.path, get.params)

        def keep(body: Body) -> tuple[Any, Parts]:
            kept, parts = get.keep(body)
            came.extend(parts)
            return kept, parts

        cached = await self.services.cache.fetch(get.entry, load, keep=keep, shape=get.shape)
        self.cost.count(cached, sum([sent.calls for sent in loads]))
        self.footprint.add(cached.generations)
        return cached, came

    async def get_own(self, get: Get, is_own: Callable[[Any], bool]) -> Cached | None:
        """As `get`, of what *is_own*; None for all else, whether it exists or not.

        Which of the two nobody can tell: it takes a look at Stripe, fails when Stripe cannot be asked,
        and shows in no figure.
        """
        apart = Reading(self.services, self._lane)
        with tally() as sent:
            self.cost.hidden.append(sent)
            cached = await apart.get(get)
            if cached.value and is_own(cached.value):
                self.cost.hidden = [each for each in self.cost.hidden if each is not sent]
                self.cost.count(cached, sent.calls)
                self.footprint.add(cached.generations)
                return cached
            if cached.source is not Source.STRIPE:
                await self._read(get.path, get.params)
        self.footprint.sound = False
        return None

    async def get_anew(self, path: str) -> Mapping[str, Any] | None:
        """What Stripe has now; the answer that shows it cannot be kept."""
        self.footprint.sound = False
        with tally() as sent:
            body = await self._read(path, {})
        self.cost.stripe_calls += sent.calls
        return body

    async def of_ledger(self, *customers: str) -> None:
        """Depend on what the ledger knows of *customers*; to be awaited before it is read."""
        self.footprint.ledger = True
        names = {
            entries.usage(customer) for customer in customers
        } - self.footprint.generations.keys()
        if not names:
            return
        try:
            standing = await self.services.cache.generations(*names)
        except CacheGone:
            self.footprint.add(None)
        else:
            self.footprint.add(dict(zip(names, standing, strict=True)))

    async def _read(self, path: str, params: Mapping[str, Any]) -> Mapping[str, Any] | None:
        try:
            return await self.services.stripe.read(path, params, lane=self._lane)
        except StripeRejected as refusal:
            if refusal.status in GONE and (cursor := CURSORS.keys() & params.keys()):
                self.cost.in_vain += 1
                raise unknown_cursor(CURSORS[cursor.pop()]) from refusal
            if refusal.status == NOT_FOUND:
                return None
            if "expand" not in params:
                raise
        # A deleted object has nothing to expand, and Stripe may say so instead of showing it.
        return await self._read(path, {name: params[name] for name in params if name != "expand"})


def unknown_cursor(argument: str) -> Refused:
    """A page cannot begin at what *argument* points at."""
    return Refused(
        ErrorCode.INVALID_INPUT,
        f"Stripe no longer has what `{argument}` points at; begin with the first page.",
        (argument,),
    )
