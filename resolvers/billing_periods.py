"""Billing periods: one month of a customer's usage, with the prices of its lines."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal

from billing.invoicing.amounts import UsageRow, usage_by_group, usage_by_sku
from billing.invoicing.snapshot import Snapshot
from billing.ledger.usage import Dimension
from billing.usage import ADJUSTMENT_PREFIX, CustomerId, LineKey, Period, Price
from resolvers.context import Context

EMPTY_VERSION = "0:0"
"""Snapshot version of a month without usage, or whose data has expired."""


@dataclass(frozen=True, slots=True)
class PricedSnapshot:
    """The *snapshot* of a period and the *prices* that it pins, by id."""

    snapshot: Snapshot
    prices: Mapping[str, Price]

    def sku_of(self, key: LineKey) -> str:
        """The SKU of line *key*; of an adjustment, that of the usage counted at its price.

        Without such usage, the lookup key that the price has now. The key itself for the line that combines
        many small ones (`rest`).
        """
        if not key.startswith(ADJUSTMENT_PREFIX):
            return key.partition("~")[0]
        price_id = self.snapshot.prices.get(key, "")
        usage = [
            line.partition("~")[0]
            for line, price in sorted(self.snapshot.prices.items())
            if price == price_id and not line.startswith(ADJUSTMENT_PREFIX)
        ]
        price = self.prices.get(price_id)
        known = price.sku if price else ""
        return known if known and (known in usage or not usage) else next(iter(usage), key)


async def current_period(context: Context, customer: CustomerId, currency: str) -> PricedSnapshot:
    """The current month of *customer*.

    *currency* applies to a customer without usage, for whom the ledger has no currency.
    """
    return await _priced(context, await context.loaders.snapshot(customer), currency)


async def find_period(
    context: Context, customer: CustomerId, month: Period, currency: str
) -> PricedSnapshot | None:
    """One *month* of *customer*; None when the ledger has none. *currency*: see `current_period`."""
    snapshot = await context.loaders.period(customer, month)
    current = Period.containing(datetime.fromtimestamp(snapshot.now_ms / 1000, UTC))
    if snapshot.version == EMPTY_VERSION and month != current:
        return None
    return await _priced(context, snapshot, currency)


async def _priced(context: Context, snapshot: Snapshot, currency: str) -> PricedSnapshot:
    if not snapshot.currency:
        snapshot = replace(snapshot, currency=currency)
    return PricedSnapshot(snapshot, await context.loaders.prices(snapshot))


async def usage_rows(
    context: Context, period: PricedSnapshot, by: Dimension | None, sku: str | None
) -> list[UsageRow]:
    """Usage by dimension (None: by SKU), highest amount first; of one *sku* only if given."""
    snapshot = period.snapshot
    if sku:
        totals = {key: n for key, n in snapshot.totals.items() if period.sku_of(key) == sku}
        snapshot = replace(snapshot, totals=totals)
    if by is None:
        return usage_by_sku(snapshot, period.prices)
    return usage_by_group(await _quantities_by(context, snapshot, by), snapshot, period.prices)


async def _quantities_by(
    context: Context, snapshot: Snapshot, by: Dimension
) -> dict[str, dict[str, Decimal]]:
    """Quantities by dimension value and line.

    Usage of a line first recorded after the snapshot is left out, because the total lacks it as well.
    """
    groups = await context.loaders.breakdown(snapshot.customer, snapshot.period, by)
    quantities: dict[str, dict[str, Decimal]] = {
        value: {line: quantity for line, quantity in lines.items() if line in snapshot.totals}
        for value, lines in groups.items()
    }
    return {value: lines for value, lines in quantities.items() if lines}
