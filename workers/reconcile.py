"""Every period is compared with Stripe once a week, whether or not anybody has a reason to.

Reconciling only asks: the flush that follows reads the invoice, logs what has drifted and heals our
lines. Other people's lines are nobody's drift but their own.
"""

from collections.abc import Iterable
from typing import Protocol
from zlib import crc32

import structlog

from billing.usage import CustomerId, Period

log = structlog.get_logger(__name__)

DAYS = 7
DAY_MS = 86_400_000
# An open period ends within a month, and one into which late usage was moved within two.
HORIZON_MS = 100 * DAY_MS
PERIODS_PER_SHARD = 10_000


class OpenPeriodsPort(Protocol):
    """The part of the ledger that knows the open periods."""

    async def ended(self, shard: int, now_ms: int, limit: int) -> list[tuple[CustomerId, Period]]:
        """Open periods whose end lies before *now_ms*."""

    async def request_verify(self, customer: CustomerId, period: Period) -> None:
        """Have the next flush, due now, read Stripe's side before it writes."""


async def reconcile(ledger: OpenPeriodsPort, shards: Iterable[int], *, now_ms: int) -> int:
    """Ask for a comparison of today's seventh of all open periods; how many. Run it once a day.

    Two reads a period and week: far inside what Stripe allows, and spread over the days.
    """
    asked, today = 0, now_ms // DAY_MS % DAYS
    for shard in shards:
        for customer, period in await ledger.ended(shard, now_ms + HORIZON_MS, PERIODS_PER_SHARD):
            if crc32(customer.encode()) % DAYS == today:
                await ledger.request_verify(customer, period)
                asked += 1
    log.info("reconcile.asked", periods=asked)
    return asked
