"""What each SKU costs: Stripe's Prices, found by their ``lookup_key``.

Prices change rarely and are asked for with every batch of usage, so they are read whole, kept by the
cache under one generation (``price.*`` and ``product.*`` webhooks bump it) and looked at again at
most once a second. A line keeps the price that was current at its first usage (the ledger pins the
id), hence lookups by id also find prices that are no longer sold.
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
    """One reading of Stripe's prices."""

    by_sku: Mapping[str, Price] = field(default_factory=dict)
    by_id: Mapping[str, Price] = field(default_factory=dict)


class Catalogue:
    """SKUs and the Stripe Prices that count them."""

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
        self._read_at: object = None
        self._checked = float("-inf")

    async def by_sku(self, skus: Iterable[str]) -> dict[str, Price]:
        """The price sold now for each of *skus*; those that Stripe does not know are left out."""
        wanted = set(skus)
        await self._look(urgent=not wanted <= self._prices.by_sku.keys())
        return {sku: self._prices.by_sku[sku] for sku in wanted if sku in self._prices.by_sku}

    async def by_id(self, ids: Iterable[str]) -> dict[str, Price]:
        """The prices with these Stripe ids, sold or not; unknown ones are left out."""
        wanted = set(ids)
        known = wanted <= self._prices.by_id.keys()
        try:
            await self._look(urgent=not known)
        except Unavailable:
            if not known:  # of a known price only the product's name may be old
                raise
        return {each: self._prices.by_id[each] for each in wanted if each in self._prices.by_id}

    async def _look(self, *, urgent: bool) -> None:
        now = self._monotonic()
        if not urgent and now - self._checked < RECHECK_SECONDS:
            return
        self._checked = now
        found = await self._cache.fetch(entries.catalogue(), self._read)
        if found.fetched_at != self._read_at:
            self._prices = _parsed(found.value or [])
            self._read_at = found.fetched_at

    async def _read(self) -> list[dict[str, Any]]:
        bodies = await self._stripe.pages(
            "/v1/prices",
            {"expand": ["data.product"]},
            lane=Lane.CUSTOMER,
        )
        return [_kept(body) for body in bodies]


def _kept(body: Mapping[str, Any]) -> dict[str, Any]:
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


def _parsed(kept: Iterable[Mapping[str, Any]]) -> _Prices:
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
