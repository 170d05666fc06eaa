"""Every open period is compared with Stripe once a week, whether or not anybody has a reason to.

Reconciling only asks: the flush that follows reads the invoice, logs what has drifted and heals our
lines. Other people's lines are nobody's drift but their own.

One shard is asked for at a time, the one that has waited longest, and the ledger remembers when. A run
that was missed, or did not come to its end, is made up for by those that follow.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

import structlog

from billing.ledger.keys import SHARDS
from billing.usage import CustomerId, Period

log = structlog.get_logger(__name__)

HOUR_MS = 3_600_000
# One shard an hour is all 64 in under three days: of the week enough is left to make up for a long outage.
EVERY_MS = 6 * 24 * HOUR_MS


class OpenPeriodsPort(Protocol):
    """The part of the ledger that knows the open periods."""

    async def compared(self) -> Mapping[int, int]:
        """When each shard was last asked for (ms); one that never was is not in it."""

    def open_periods(self, shard: int) -> AsyncIterator[Sequence[tuple[CustomerId, Period]]]:
        """Every open period of *shard*, a page at a time, some perhaps twice."""

    async def request_verify_all(self, periods: Sequence[tuple[CustomerId, Period]]) -> None:
        """Have the next flush of each, due now, read Stripe's side before it writes."""

    async def note_compared(self, shard: int, at_ms: int) -> None:
        """All of *shard* counts as asked for at *at_ms*."""


async def reconcile(ledger: OpenPeriodsPort, *, now_ms: int) -> int:
    """Ask for a comparison of the shard that has waited longest; how many periods. Run it every hour.

    Two reads a period: far inside what Stripe allows, and spread over the week.
    """
    last = await ledger.compared()
    shard = min(range(SHARDS), key=lambda each: last.get(each, 0))
    if now_ms - last.get(shard, 0) < EVERY_MS:
        return 0
    # Before, so that a shard that cannot be asked for holds up no other; it comes again in a few hours.
    await ledger.note_compared(shard, now_ms - EVERY_MS + 3 * HOUR_MS)
    asked = 0
    async for page in ledger.open_periods(shard):
        await ledger.request_verify_all(page)
        asked += len(page)
    await ledger.note_compared(shard, now_ms)
    log.info("reconcile.asked", shard=shard, periods=asked)
    return asked
