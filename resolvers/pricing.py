"""The price that a SKU named by Support is sold at."""

from billing.errors import ErrorCode, Refused
from billing.services import Services
from billing.usage import Price


async def price_of(services: Services, sku: str, path: tuple[str, ...]) -> Price:
    """The price of *sku*; Refused (UNKNOWN_SKU, pointing at *path*) when Stripe sells none of that name."""
    prices = await services.catalogue.by_sku([sku])
    if sku not in prices:
        raise Refused(
            ErrorCode.UNKNOWN_SKU,
            "No active Stripe price has this SKU for its lookup key; `currentPeriod.usage` shows those in use.",
            path,
        )
    return prices[sku]
