"""The SKU of an invoice line, taken from its price, so that it is also found for adjustments and carried usage."""

from collections.abc import Mapping

from billing.invoicing.snapshot import Snapshot
from billing.usage import LineKey, Price


def sku_of(key: LineKey, snapshot: Snapshot, prices: Mapping[str, Price]) -> str:
    """The SKU of line *key*; the key itself for the line that combines many small ones (`rest`)."""
    price = prices.get(snapshot.prices.get(key, ""))
    return price.sku if price and price.sku else key.partition("~")[0]
