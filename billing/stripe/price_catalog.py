"""The price of each SKU: Stripe's Prices, found by their ``lookup_key``.

Prices change rarely and every batch of usage needs them. All of them are one cache entry under one
generation, which ``price.*`` and ``product.*`` webhooks replace; a process checks it at most once a second.
The ledger pins the price that was active at a line's first usage, so lookups by id include inactive prices.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from billing.budget import Lane
from billing.cache import Cache, entries
from billing.errors import Unavailable
from billing.stripe.client import StripeApi
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
        self,
        stripe: StripeApi,
        cache: Cache,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stripe = stripe
        self._cache = cache
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
        found = await self._cache.fetch(entries.price_catalog(), self._fetch_prices)
        if found.fetched_at != self._fetched_at:
            self._prices = _index(found.value or [])
            self._fetched_at = found.fetched_at

    async def _fetch_prices(self) -> list[dict[str, Any]]:
        bodies = await self._stripe.list_all(
            "/v1/prices",
            {"expand": ["data.product"]},
            lane=Lane.CUSTOMER,
        )
        return [_trim(body) for body in bodies]


def _trim(body: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a Stripe Price that billing needs: what the cache keeps."""
    product = body["product"]
    expanded = product if isinstance(product, dict) else {}
    return {
        "id": body["id"],
        "sku": body["lookup_key"],
        "active": body["active"],
        "currency": body["currency"],
        "unit_amount": body["unit_amount_decimal"],
        "description": expanded.get("name"),
        "unit": expanded.get("unit_label"),
    }


def _index(kept: Iterable[Mapping[str, Any]]) -> _Prices:
    by_id: dict[str, Price] = {}
    by_sku: dict[str, Price] = {}
    for each in kept:
        if (
            each["unit_amount"] is None
        ):  # tiered prices have no unit amount; usage cannot be counted by one
            continue
        price = Price(
            id=each["id"],
            sku=each["sku"] or "",
            currency=each["currency"],
            unit_amount=Decimal(each["unit_amount"]),
            description=each["description"],
            unit=each["unit"],
        )
        by_id[price.id] = price
        if price.sku and each["active"]:
            by_sku[price.sku] = price
    return _Prices(by_sku, by_id)
