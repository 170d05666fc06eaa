"""Billing periods: one month of a customer's usage, with the prices of its lines."""

from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from itertools import islice

from billing.invoicing.amounts import UsageRow, by_size, usage_by_group
from billing.invoicing.snapshot import Snapshot
from billing.ledger.usage import Dimension
from billing.money import EXACT
from billing.usage import ADJUSTMENT_PREFIX, CustomerId, LineKey, Period, Price
from resolvers.context import Context
from resolvers.dataloaders.ledger import Computation
from resolvers.loop_slots import ROWS_PER_SLOT, loop_slots

MAX_ROWS = 100
"""Rows of a usage breakdown, besides the one that combines the others."""
REST_KEY = "rest:"
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
    context: Context, period: PricedSnapshot, by: Dimension | None, sku: str | None, first: int
) -> list[UsageRow]:
    """Usage by dimension (None: by SKU), highest amount first; of one *sku* only if given.

    Behind the *first* rows, one more combines the others, if there are several: its key is `REST_KEY` and their
    number. An operation computes each breakdown once.
    """
    snapshot = period.snapshot
    key = (snapshot.customer, snapshot.period, snapshot.version, by, sku)
    breakdown = _Breakdown(context, period, by, sku)
    ranked: list[UsageRow] = await context.loaders.computed(Computation(key, breakdown.rank))
    if len(ranked) <= first + 1:
        return ranked
    shown = ranked[:first]
    rest = Computation((*key, first), partial(breakdown.combine, {row.key for row in shown}))
    return [*shown, await context.loaders.computed(rest)]


class _Breakdown:
    """Usage of *period* by a dimension, or by SKU, of one *sku* only if given; made in parts."""

    def __init__(
        self, context: Context, period: PricedSnapshot, by: Dimension | None, sku: str | None
    ) -> None:
        snapshot = period.snapshot
        if sku:
            totals = {key: n for key, n in snapshot.totals.items() if period.sku_of(key) == sku}
            snapshot = replace(snapshot, totals=totals)
        self._context = context
        self._snapshot = snapshot
        self._prices = period.prices
        self._by = by

    async def rank(self) -> list[UsageRow]:
        """The rows with the highest amounts, one more than are shown at most."""
        ranked: list[UsageRow] = []
        async for groups in self._parts():
            ranked += usage_by_group(groups, self._snapshot, self._prices)
            ranked = sorted(ranked, key=by_size)[: MAX_ROWS + 2]
        return ranked

    async def combine(self, shown: Collection[str]) -> UsageRow:
        """One row of all groups but those *shown*."""
        number, quantities = 0, dict[LineKey, Decimal]()
        async for groups in self._parts():
            for lines in (lines for value, lines in groups.items() if value not in shown):
                number += 1
                for line, quantity in lines.items():
                    quantities[line] = EXACT.add(quantities.get(line, Decimal(0)), quantity)
        [row] = usage_by_group({f"{REST_KEY}{number}": quantities}, self._snapshot, self._prices)
        return row

    async def _parts(self) -> AsyncIterator[dict[str, dict[LineKey, Decimal]]]:
        """Quantities by group and line, some groups at a time.

        Usage of a line first recorded after the snapshot is left out, because the total lacks it as well.
        """
        groups = iter((await self._groups()).items())
        while part := list(islice(groups, ROWS_PER_SLOT)):
            await loop_slots.take(len(part))
            self._context.rows_computed += len(part)
            quantities = {
                value: {line: used for line, used in lines.items() if line in self._snapshot.totals}
                for value, lines in part
            }
            yield {value: lines for value, lines in quantities.items() if lines}

    async def _groups(self) -> Mapping[str, Mapping[LineKey, Decimal]]:
        snapshot = self._snapshot
        if self._by is not None:
            return await self._context.loaders.breakdown(
                snapshot.customer, snapshot.period, self._by
            )
        return {line: {line: used} for line, used in snapshot.totals.items() if used}
