"""The price of each SKU: Stripe's Prices, found by their ``lookup_key``.

Prices change rarely and every batch of usage needs them. All active ones are one cache entry under one
generation, which ``price.*`` and ``product.*`` webhooks replace; a process checks it at most once a second.
Their events may be late or lost, so the list is read again before a SKU is refused for good.
The ledger pins the price that was active at a line's first usage. If it was archived since, it is read by id.
"""

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from billing.budget import Lane
from billing.budget.caller import calls_on_behalf_of
from billing.cache import entries
from billing.errors import ErrorCode, Refused, Unavailable
from billing.pagination import Page
from billing.stripe import resources
from billing.stripe.price_record import PriceRecord
from billing.stripe.reader import ReadResult, StripeReader
from billing.stripe.resource import Resource
from billing.usage import Price

T = TypeVar("T")
RECHECK_SECONDS = 1.0
MAX_WAIT_SECONDS = 5.0  # of a batch of usage for the prices of its SKUs
# The list is read again for a SKU that it lacks, by all processes together at most so often; for a SKU that it
# still lacked the last times, ever less often.
REREAD_SECONDS, MAX_REREAD_SECONDS = 3.0, 300.0
MAX_MISSED_SKUS = 1_000  # remembered; a sender may invent them
NEVER = datetime.fromtimestamp(0, UTC)


class PriceMissing(Refused):
    """Stripe no longer has a price by which recorded usage is billed."""

    def __init__(self, price: str) -> None:
        super().__init__(
            ErrorCode.UNKNOWN_SKU,
            f"Usage is counted at price {price}, which Stripe does not know; restore it there.",
        )


@dataclass(frozen=True)
class _Prices:
    """The active prices, indexed; *unusable* says why a SKU's price cannot count usage."""

    by_sku: Mapping[str, Price] = field(default_factory=dict)
    by_id: Mapping[str, Price] = field(default_factory=dict)
    unusable: Mapping[str, str] = field(default_factory=dict)


class PriceCatalog:
    """Looks up prices by SKU and by id."""

    def __init__(
        self, reader: StripeReader, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._reader = reader
        self._monotonic = monotonic
        self._prices = _Prices()
        self._inactive: dict[str, Price] = {}
        self._fetched_at = NEVER
        self._checked_at = float("-inf")
        self._rereading = asyncio.Lock()
        self._misses: defaultdict[str, int] = defaultdict(int)

    async def by_sku(self, skus: Iterable[str]) -> dict[str, Price]:
        """The price at which new usage of each of *skus* is counted; see `refusal` for those left out."""
        requested_at, wanted = datetime.now(UTC), set(skus)
        try:
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                await self._refresh(urgent=not wanted <= self._prices.by_sku.keys())
                if missing := wanted - self._prices.by_sku.keys():
                    await self._reread(missing, requested_at)
        except TimeoutError:
            if self._fetched_at == NEVER:
                raise Unavailable("Stripe's prices cannot be read now; try again.") from None
        except Unavailable:
            if self._fetched_at == NEVER:  # otherwise the last known prices count
                raise
        return {sku: self._prices.by_sku[sku] for sku in wanted if sku in self._prices.by_sku}

    def refusal(self, sku: str, requested_at: datetime) -> Refused:
        """The reason for which `by_sku`, called after *requested_at*, left out *sku*, with the cure.

        It has a *retry_after* if the list of prices was read before that, and may be out of date.
        """
        code = ErrorCode.UNKNOWN_SKU
        message = f"No active Stripe price has the lookup key {sku!r}; create it."
        if unusable := self._prices.unusable.get(sku):
            code, message = ErrorCode.UNUSABLE_PRICE, unusable
        retry_after = max(1, math.ceil(self._reread_at(sku) - time.time()))
        return Refused(
            code, message, retry_after=None if self._fetched_at >= requested_at else retry_after
        )

    async def by_id(self, ids: Iterable[str]) -> dict[str, Price]:
        """The prices with these ids, active or not; those that Stripe does not know are left out."""
        wanted = set(ids)
        known = wanted <= self._prices.by_id.keys() | self._inactive.keys()
        checked = False
        try:
            checked = await self._refresh(urgent=not known)
        except Unavailable:
            if not known:  # a known price can only have an outdated product name
                raise
        active = {id_: self._prices.by_id[id_] for id_ in wanted if id_ in self._prices.by_id}
        others = wanted - active.keys()
        if checked:
            await asyncio.gather(*map(self._read, others))
        return active | {id_: self._inactive[id_] for id_ in others if id_ in self._inactive}

    async def require(self, ids: Iterable[str]) -> dict[str, Price]:
        """As `by_id`; PriceMissing if Stripe does not know one of them."""
        wanted = set(ids)
        found = await self.by_id(wanted)
        if missing := wanted - found.keys():
            raise PriceMissing(min(missing))
        return found

    async def expire(self) -> None:
        """Read the prices again at their next use: Stripe has refused one, and its event may be late."""
        await self._reader.expire(entries.PRICE_CATALOG)
        self._checked_at = float("-inf")

    async def _refresh(self, *, urgent: bool) -> bool:
        """Reload what has changed; False if the last check was a moment ago."""
        now = self._monotonic()
        if not urgent and now - self._checked_at < RECHECK_SECONDS:
            return False
        self._checked_at = now
        self._use(await self._get(resources.prices()))
        return True

    async def _reread(self, missing: set[str], requested_at: datetime) -> None:
        """Read the list again for SKUs that it lacks, if it is the time of one of them.

        While Stripe is unavailable the list stays as it is.
        """
        async with self._rereading:
            if self._fetched_at >= requested_at or min(map(self._reread_at, missing)) > time.time():
                return
            with suppress(Unavailable), calls_on_behalf_of(""):
                self._use(
                    await self._reader.reload(resources.prices(), entries.PRICE_LIST, Lane.CUSTOMER)
                )
            if len(self._misses) > MAX_MISSED_SKUS:
                self._misses.clear()
            if self._fetched_at >= requested_at:
                for sku in missing - self._prices.by_sku.keys():
                    self._misses[sku] += 1

    def _reread_at(self, sku: str) -> float:
        """The Unix time from which the list may be read again for *sku*."""
        pause = REREAD_SECONDS * 2.0 ** min(self._misses.get(sku, 0), 20)
        return self._fetched_at.timestamp() + min(pause, MAX_REREAD_SECONDS)

    def _use(self, result: ReadResult[Page[PriceRecord]]) -> None:
        if result.fetched_at != self._fetched_at:
            self._prices = _index(result.value.items if result.value else ())
            self._fetched_at = result.fetched_at
            for sku in self._prices.by_sku.keys() & self._misses.keys():
                del self._misses[sku]

    async def _read(self, price_id: str) -> None:
        """Read a price that the list of active ones does not have."""
        try:
            record = (await self._get(resources.price(price_id))).value
        except Unavailable:
            if price_id not in self._inactive:
                raise
            return
        if record is not None and (price := _price(record)):
            self._inactive[price_id] = price

    async def _get(self, resource: Resource[T]) -> ReadResult[T]:
        """Read *resource* on nobody's behalf: prices are everybody's."""
        with calls_on_behalf_of(""):
            return await self._reader.get(resource, Lane.CUSTOMER)


def _index(records: Iterable[PriceRecord]) -> _Prices:
    by_id = {record.id: price for record in records if (price := _price(record))}
    by_sku: dict[str, Price] = {}
    unusable: dict[str, str] = {}
    for record in records:
        if not record.sku:
            continue
        if problem := record.problem:
            unusable[record.sku] = (
                f"Price {record.id} of {record.sku!r} cannot count usage: {problem}"
            )
        else:
            by_sku[record.sku] = by_id[record.id]
    return _Prices(by_sku, by_id, unusable)


def _price(record: PriceRecord) -> Price | None:
    if record.unit_amount is None:
        return None
    return Price(
        id=record.id,
        sku=record.sku or "",
        currency=record.currency,
        unit_amount=record.unit_amount,
        description=record.description,
        unit=record.unit,
        billable=record.active and record.product_active and not record.is_recurring,
    )
