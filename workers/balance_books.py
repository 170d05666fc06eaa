"""Balances the books: every open period that is synced has exactly the ledger's amount on its draft.

It is compared with Stripe's lines as the ledger has stored them, so it costs no call to Stripe: the weekly
verification compares those. Each run balances one shard, and all are balanced within a day.
"""

from collections.abc import Iterator, Sequence

import structlog

from billing.invoicing.amounts import compute_amounts
from billing.invoicing.diff import Prices
from billing.invoicing.snapshot import Snapshot
from billing.ledger import Ledger
from billing.ledger.books import Difference, DifferenceKind
from billing.ledger.keys import SHARDS
from billing.services import Services
from billing.stripe.price_catalog import PriceCatalog

log = structlog.get_logger(__name__)

INTERVAL_MS = 900_000


async def balance_books(services: Services, *, now_ms: int) -> int:
    """Balance the shard whose turn it is; return its number of periods. Run it every quarter of an hour."""
    ledger, shard = services.ledger, now_ms // INTERVAL_MS % SHARDS
    known = {found for found in await ledger.books.differences(shard) if _is_unsent(found)}
    balanced = 0
    unsent: set[Difference] = set()
    async for page in ledger.periods.iter_open(shard):
        snapshots = await ledger.periods.snapshots(page)
        unsent |= set(await _unsent(services.price_catalog, snapshots))
        balanced += len(snapshots)
    await _record(ledger, known, unsent)
    return balanced


async def _record(ledger: Ledger, known: set[Difference], unsent: set[Difference]) -> None:
    for found in unsent - known:
        log.error(
            "books.unbalanced",
            customer=found.customer,
            period=str(found.period),
            kind=found.kind,
            amount=found.amount,
        )
    places = {(found.customer, found.period) for found in unsent}
    settled = [
        Difference(found.customer, found.period, found.kind, 0)
        for found in known
        if (found.customer, found.period) not in places
    ]
    await ledger.books.record([*settled, *(unsent - known)])


async def _unsent(catalog: PriceCatalog, snapshots: Sequence[Snapshot]) -> list[Difference]:
    synced = [snapshot for snapshot in snapshots if snapshot.up_to_date and not snapshot.batch]
    ids = {price for snapshot in synced for price in snapshot.prices.values()}
    prices = await catalog.by_id(ids)
    return [found for snapshot in synced for found in _compare(snapshot, prices)]


def _compare(snapshot: Snapshot, prices: Prices) -> Iterator[Difference]:
    if set(snapshot.prices.values()) <= prices.keys():
        pending = compute_amounts(snapshot, prices).pending
        if pending.amount:
            place = (snapshot.customer, snapshot.period)
            yield Difference(*place, DifferenceKind.UNSENT, pending.minor)


def _is_unsent(found: Difference) -> bool:
    return found.kind is DifferenceKind.UNSENT
