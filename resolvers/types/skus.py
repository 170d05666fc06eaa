"""Which SKU a line bills: its price knows, also for a correction or for usage of another month."""

from collections.abc import Mapping

from billing.invoicing.snapshot import Snapshot
from billing.usage import LineKey, Price


def sku_of(key: LineKey, snapshot: Snapshot, prices: Mapping[str, Price]) -> str:
    """The SKU behind line *key*; the key itself for a line that stands for many (the rest)."""
    price = prices.get(snapshot.prices.get(key, ""))
    return price.sku if price and price.sku else key.partition("~")[0]
