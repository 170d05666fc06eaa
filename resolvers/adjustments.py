"""Adjustments of usage, with the prices of their amounts."""

from typing import NamedTuple

from billing.ledger import Adjustment
from billing.pagination import Page, PageRequest
from billing.usage import CustomerId, Price
from resolvers.context import Context


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
    services = context.uncached_services()
    page = await services.ledger.adjustments.page(customer, request.size, request.after)
    prices = await services.price_catalog.by_id(adjustment.price for adjustment in page.items)
    return page.map(lambda adjustment: PricedAdjustment(adjustment, prices[adjustment.price]))


async def find_adjustment(context: Context, adjustment_id: str) -> PricedAdjustment | None:
    """The adjustment with this id; the caller checks that the viewer may see it."""
    services = context.uncached_services()
    adjustment = await services.ledger.adjustments.get(adjustment_id)
    if adjustment is None:
        return None
    prices = await services.price_catalog.by_id([adjustment.price])
    return PricedAdjustment(adjustment, prices[adjustment.price])
