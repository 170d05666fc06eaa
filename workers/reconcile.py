"""Requests a verify of every open period against Stripe, once a week.

The flush that follows reads the invoice, logs the drift and restores our lines; foreign lines are not drift.

Each run handles one shard, the one reconciled longest ago, and the ledger stores the time. The following runs
make up for a run that was missed or did not complete.
"""

import structlog

from billing.ledger import Ledger
from billing.ledger.keys import SHARDS

log = structlog.get_logger(__name__)

HOUR_MS = 3_600_000
# One shard per hour is all 64 in under three days, which leaves time in the week to make up for a long outage.
ROUND_MS = 6 * 24 * HOUR_MS


async def reconcile(ledger: Ledger, *, now_ms: int) -> int:
    """Request a verify of the shard reconciled longest ago; return its number of periods. Run it hourly.

    A verify costs two reads per period: far below Stripe's limit, and spread over the week.
    """
    last = await ledger.periods.last_reconciled()
    shard = min(range(SHARDS), key=lambda shard: last.get(shard, 0))
    if now_ms - last.get(shard, 0) < ROUND_MS:
        return 0
    # Recorded first, so that a broken shard does not block the others; it is tried again in three hours.
    await ledger.periods.record_reconciled(shard, now_ms - ROUND_MS + 3 * HOUR_MS)
    requested = 0
    async for page in ledger.periods.iter_open(shard):
        await ledger.periods.request_verify_all(page)
        requested += len(page)
    await ledger.periods.record_reconciled(shard, now_ms)
    log.info("reconcile.requested", shard=shard, periods=requested)
    return requested
