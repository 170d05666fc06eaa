"""The price of each SKU: Stripe's Prices, found by their ``lookup_key``.

Prices change rarely and every batch of usage needs them. All of them are one cache entry under one
generation, which ``price.*`` and ``product.*`` webhooks replace; a process checks it at most once a second.
The ledger pins the price that was active at a line's first usage, so lookups by id include inactive prices.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from billing.budget import Lane
from billing.errors import Unavailable
from billing.stripe import resources
from billing.stripe.reader import StripeReader
from billing.stripe.records import PriceRecord
from billing.usage import Price

RECHECK_SECONDS = 1.0


@dataclass(frozen=True)
class _Prices:
    """The usable prices, indexed."""

    by_sku: Mapping[str, Price] = field(default_factory=dict)
    by_id: Mapping[str, Price] = field(default_factory=dict)


class PriceCatalog:
    """Looks up prices by SKU and by id."""

    def __init__(
        self, reader: StripeReader, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._reader = reader
        self._monotonic = monotonic
        self._prices = _Prices()
        self._fetched_at: object = None
        self._checked_at = float("-inf")

    async def by_sku(self, skus: Iterable[str]) -> dict[str, Price]:
        """The active price of each of *skus*; unknown SKUs are left out."""
        wanted = set(skus)
        await self._refresh(urgent=not wanted <= self._prices.by_sku.keys())
        return {sku: self._prices.by_sku[sku] for sku in wanted if sku in self._prices.by_sku}

    async def by_id(self, ids: Iterable[str]) -> dict[str, Price]:
        """The prices with these ids, active or not; unknown ids are left out."""
        wanted = set(ids)
        known = wanted <= self._prices.by_id.keys()
        try:
            await self._refresh(urgent=not known)
        except Unavailable:
            if not known:  # a known price can only have an outdated product name
                raise
        return {id_: self._prices.by_id[id_] for id_ in wanted if id_ in self._prices.by_id}

    async def _refresh(self, *, urgent: bool) -> None:
        now = self._monotonic()
        if not urgent and now - self._checked_at < RECHECK_SECONDS:
            return
        self._checked_at = now
        result = await self._reader.get(resources.prices(), Lane.CUSTOMER)
        if result.fetched_at != self._fetched_at:
            self._prices = _index(result.value.items if result.value else ())
            self._fetched_at = result.fetched_at


def _index(records: Iterable[PriceRecord]) -> _Prices:
    by_id: dict[str, Price] = {}
    by_sku: dict[str, Price] = {}
    for record in records:
        if record.unit_amount is None:  # a tiered price, by which usage cannot be counted
            continue
        price = Price(
            id=record.id,
            sku=record.sku or "",
            currency=record.currency,
            unit_amount=record.unit_amount,
            description=record.description,
            unit=record.unit,
        )
        by_id[price.id] = price
        if price.sku and record.active:
            by_sku[price.sku] = price
    return _Prices(by_sku, by_id)
