"""Every period is compared with Stripe once a week, whether or not anybody has a reason to.

Reconciling only asks: the flush that follows reads the invoice, logs what has drifted and heals our
lines. Other people's lines are nobody's drift but their own.
"""

from collections.abc import AsyncIterator, Iterable
from typing import Protocol
from zlib import crc32

import structlog

from billing.usage import CustomerId, Period

log = structlog.get_logger(__name__)

DAYS = 7
DAY_MS = 86_400_000


class OpenPeriodsPort(Protocol):
    """The part of the ledger that knows the open periods."""

    def open_periods(self, shard: int) -> AsyncIterator[tuple[CustomerId, Period]]:
        """Every open period of *shard*, some perhaps twice."""

    async def request_verify(self, customer: CustomerId, period: Period) -> None:
        """Have the next flush, due now, read Stripe's side before it writes."""


async def reconcile(ledger: OpenPeriodsPort, shards: Iterable[int], *, now_ms: int) -> int:
    """Ask for a comparison of today's seventh of all open periods; how many. Run it once a day.

    Two reads a period and week: far inside what Stripe allows, and spread over the days.
    """
    asked, today = 0, now_ms // DAY_MS % DAYS
    for shard in shards:
        async for customer, period in ledger.open_periods(shard):
            if crc32(customer.encode()) % DAYS == today:
                await ledger.request_verify(customer, period)
                asked += 1
    log.info("reconcile.asked", periods=asked)
    return asked
