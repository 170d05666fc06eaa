"""Adjustments of usage, with the prices of their amounts."""

from typing import NamedTuple

from billing.invoicing.snapshot import Snapshot
from billing.ledger import Adjustment
from billing.pagination import Page, PageRequest
from billing.services import Services
from billing.usage import ADJUSTMENT_PREFIX, CustomerId, LineKey, Price
from resolvers.context import Context
from resolvers.validation import get_price


class PricedAdjustment(NamedTuple):
    """An adjustment and the price that its amount is computed with."""

    adjustment: Adjustment
    price: Price

    @property
    def id(self) -> str:
        """The adjustment's id."""
        return self.adjustment.id


async def list_adjustments(
    context: Context, customer: CustomerId, request: PageRequest
) -> Page[PricedAdjustment]:
    """The adjustments of *customer*'s usage, newest first."""
    services = context.bypass_loaders()
    page = await services.ledger.adjustments.page(customer, request.size, request.after)
    prices = await services.price_catalog.require(adjustment.price for adjustment in page.items)
    return page.map(lambda adjustment: PricedAdjustment(adjustment, prices[adjustment.price]))


async def find_adjustment(context: Context, adjustment_id: str) -> PricedAdjustment | None:
    """The adjustment with this id; the caller checks that the viewer may see it."""
    services = context.bypass_loaders()
    adjustment = await services.ledger.adjustments.get(adjustment_id)
    return None if adjustment is None else await with_price(services, adjustment)


async def with_price(services: Services, adjustment: Adjustment) -> PricedAdjustment:
    """*adjustment* with the price that it was made at."""
    prices = await services.price_catalog.require([adjustment.price])
    return PricedAdjustment(adjustment, prices[adjustment.price])


async def correction_price(
    services: Services, snapshot: Snapshot, sku: str, path: tuple[str, ...]
) -> Price:
    """The price of a correction of *sku* on the bill of *snapshot*: that of the usage which it corrects.

    Without such usage it is the price at which the SKU is sold now; Refused with *path* if it is not sold.
    """
    pinned = await _pinned_price(services, snapshot, sku)
    if pinned is None:
        return await get_price(services, sku, path)
    return (await services.price_catalog.require([pinned]))[pinned]


async def _pinned_price(services: Services, snapshot: Snapshot, sku: str) -> str | None:
    """The id of the price at which the bill has usage of *sku*: its own, else late usage, else a correction."""
    if own := snapshot.prices.get(LineKey(sku)):
        return own
    late = [key for key in snapshot.prices if key.startswith(f"{sku}~")]
    if late:
        return snapshot.prices[max(late)]
    ids = [
        key.removeprefix(ADJUSTMENT_PREFIX)
        for key in snapshot.prices
        if key.startswith(ADJUSTMENT_PREFIX)
    ]
    made = await services.ledger.adjustments.get_many(snapshot.customer, ids)
    corrections = [adjustment for adjustment in made if adjustment.sku == sku]
    latest = max(corrections, key=lambda adjustment: adjustment.at_ms, default=None)
    return None if latest is None else latest.price
