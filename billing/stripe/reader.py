"""The reader of Stripe's objects: through the cache, or from Stripe if a resource is never cached."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from billing.budget import Lane
from billing.cache import Cache
from billing.cache.local_cache import Source
from billing.errors import ErrorCode, Refused, ShareUsed, StripeRejected
from billing.stripe.client import CallCount, StripeApi, count_calls
from billing.stripe.resource import EntryValue, Resource
from billing.stripe.values import StripeObject

T = TypeVar("T")
U = TypeVar("U")

NOT_FOUND = 404
UNKNOWN_ID_STATUSES = frozenset({400, NOT_FOUND})  # Stripe's responses to an unknown id or cursor


class UnknownCursor(Refused):
    """The cursor in *argument* is the id of nothing in the list."""

    def __init__(self, argument: str) -> None:
        super().__init__(
            ErrorCode.INVALID_INPUT,
            f"Stripe no longer has what `{argument}` points at; begin with the first page.",
            (argument,),
        )


@dataclass(frozen=True, slots=True)
class ReadResult(Generic[T]):
    """A resource's *value* (None: Stripe has no such object), its source and the time of its load.

    It is valid under *generations*; None: it must not be cached. The read took *calls* to Stripe, whose
    response also contained the values of *included* entries.
    """

    value: T | None
    source: Source
    fetched_at: datetime
    generations: Mapping[str, bytes] | None
    calls: int
    included: Sequence[EntryValue] = ()

    def part(self, value: U) -> "ReadResult[U]":
        """The result for *value*, a part of this one; it took no calls of its own."""
        return ReadResult(value, self.source, self.fetched_at, self.generations, 0)


class StripeReader:
    """Reads resources of Stripe."""

    def __init__(self, api: StripeApi, cache: Cache) -> None:
        self._api = api
        self._cache = cache

    async def get(self, resource: Resource[T], lane: Lane) -> ReadResult[T]:
        """Read *resource*; calls to Stripe are made in *lane*.

        Raises UnknownCursor, StripeRejected, or Unavailable if the cache has no value that may stand in.
        """
        if not resource.is_cached:
            return await self.get_fresh(resource, lane)
        load = _Load(self._api, resource, lane)
        try:
            cached = await self._cache.fetch(
                resource.entry, load, type_=resource.value_type.type, split=load.split
            )
        except ShareUsed:
            if load.started:
                raise
            # Another caller's share was used up, whose load this one joined.
            return await self.get(resource, lane)
        return ReadResult(
            cached.value,
            cached.source,
            cached.fetched_at,
            cached.generations,
            load.calls,
            load.included,
        )

    async def reload(self, resource: Resource[T], generation: str, lane: Lane) -> ReadResult[T]:
        """As `get`, after replacing *generation*, unless that was replaced within the last second."""
        await self.expire(generation)
        return await self.get(resource, lane)

    async def expire(self, generation: str) -> None:
        """Replace *generation*, unless it was replaced within the last second."""
        await self._cache.invalidate_throttled(generation)

    async def get_fresh(self, resource: Resource[T], lane: Lane) -> ReadResult[T]:
        """As `get`, bypassing the cache."""
        load, requested_at = _Load(self._api, resource, lane), datetime.now(UTC)
        value = await load()
        return ReadResult(value, Source.STRIPE, requested_at, None, load.calls)


class _Load(Generic[T]):
    """Loads one resource from Stripe when the cache requires it; counts its calls."""

    def __init__(self, api: StripeApi, resource: Resource[T], lane: Lane) -> None:
        self._api = api
        self._resource = resource
        self._lane = lane
        self._counts: list[CallCount] = []
        self.included: Sequence[EntryValue] = ()

    @property
    def started(self) -> bool:
        """False while nothing had to be loaded, or another caller's load was joined."""
        return bool(self._counts)

    @property
    def calls(self) -> int:
        """Number of calls made so far."""
        return sum(count.calls for count in self._counts)

    async def __call__(self) -> T | None:
        """The value; None if Stripe has no such object."""
        with count_calls() as count:
            self._counts.append(count)
            body = await self._read(self._resource.params)
        return None if body is None else self._resource.decode(body)

    def split(self, value: T) -> tuple[T, Sequence[EntryValue]]:
        """The value of the resource's own entry, and the values of others."""
        own, self.included = self._resource.split(value)
        return own, self.included

    async def _read(self, params: Mapping[str, Any]) -> StripeObject | None:
        try:
            return await self._fetch(params)
        except StripeRejected as rejection:
            argument = self._resource.cursor_argument
            if argument and rejection.status in UNKNOWN_ID_STATUSES:
                raise UnknownCursor(argument) from rejection
            if rejection.status == NOT_FOUND:
                return None
            if "expand" not in params or self._resource.all_pages:
                raise
        # Stripe may reject `expand` for a deleted object, which has nothing to expand.
        return await self._read({name: params[name] for name in params if name != "expand"})

    async def _fetch(self, params: Mapping[str, Any]) -> StripeObject:
        path, lane = self._resource.path, self._lane
        if self._resource.all_pages:
            return {"data": await self._api.list_all(path, params, lane=lane), "has_more": False}
        body = await self._api.read(path, params, lane=lane)
        if self._resource.all_lines and body["lines"].get("has_more"):
            lines = await self._api.list_all(f"{path}/lines", lane=lane)
            return {**body, "lines": {"data": lines, "has_more": False}}
        return body
