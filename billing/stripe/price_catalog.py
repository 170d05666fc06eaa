"""The price of each SKU: Stripe's Prices, found by their ``lookup_key``.

Prices change rarely and every batch of usage needs them. All active ones are one cache entry under one
generation, which ``price.*`` and ``product.*`` webhooks replace; a process checks it at most once a second.
The ledger pins the price that was active at a line's first usage. If it was archived since, it is read by id.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from billing.budget import Lane
from billing.errors import ErrorCode, Refused, Unavailable
from billing.stripe import resources
from billing.stripe.price_record import PriceRecord
from billing.stripe.reader import StripeReader
from billing.usage import Price

RECHECK_SECONDS = 1.0


class PriceMissing(Refused):
    """Stripe no longer has a price by which recorded usage is billed."""

    def __init__(self, price: str) -> None:
        super().__init__(
            ErrorCode.UNKNOWN_SKU,
            f"Usage is counted at price {price}, which Stripe does not know; restore it there.",
        )


@dataclass(frozen=True)
class _Prices:
    """The active prices, indexed; *unusable* are those that cannot count usage, by SKU."""

    by_sku: Mapping[str, Price] = field(default_factory=dict)
    by_id: Mapping[str, Price] = field(default_factory=dict)
    unusable: Mapping[str, Refused] = field(default_factory=dict)


class PriceCatalog:
    """Looks up prices by SKU and by id."""

    def __init__(
        self, reader: StripeReader, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._reader = reader
        self._monotonic = monotonic
        self._prices = _Prices()
        self._inactive: dict[str, Price] = {}
        self._fetched_at: object = None
        self._checked_at = float("-inf")

    async def by_sku(self, skus: Iterable[str]) -> dict[str, Price]:
        """The price at which new usage of each of *skus* is counted; see `refusal` for those left out."""
        wanted = set(skus)
        await self._refresh(urgent=not wanted <= self._prices.by_sku.keys())
        return {sku: self._prices.by_sku[sku] for sku in wanted if sku in self._prices.by_sku}

    def refusal(self, sku: str) -> Refused:
        """The reason for which `by_sku` left out *sku*, with the cure."""
        return self._prices.unusable.get(sku) or Refused(
            ErrorCode.UNKNOWN_SKU, f"No active Stripe price has the lookup key {sku!r}; create it."
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

    async def _refresh(self, *, urgent: bool) -> bool:
        """Reload what has changed; False if the last check was a moment ago."""
        now = self._monotonic()
        if not urgent and now - self._checked_at < RECHECK_SECONDS:
            return False
        self._checked_at = now
        result = await self._reader.get(resources.prices(), Lane.CUSTOMER)
        if result.fetched_at != self._fetched_at:
            self._prices = _index(result.value.items if result.value else ())
            self._fetched_at = result.fetched_at
        return True

    async def _read(self, price_id: str) -> None:
        """Read a price that the list of active ones does not have."""
        try:
            record = (await self._reader.get(resources.price(price_id), Lane.CUSTOMER)).value
        except Unavailable:
            if price_id not in self._inactive:
                raise
            return
        if record is not None and (price := _price(record)):
            self._inactive[price_id] = price


def _index(records: Iterable[PriceRecord]) -> _Prices:
    by_id = {record.id: price for record in records if (price := _price(record))}
    by_sku: dict[str, Price] = {}
    unusable: dict[str, Refused] = {}
    for record in records:
        if not record.sku:
            continue
        if problem := record.problem:
            message = f"Price {record.id} of {record.sku!r} cannot count usage: {problem}"
            unusable[record.sku] = Refused(ErrorCode.UNUSABLE_PRICE, message)
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
