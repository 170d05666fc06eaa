"""Takes what is due: no more than there are slots for here, and room for at Stripe.

What closes, and what somebody asked for whose wake-up was lost, has slots of its own: a month must not
end late because everybody's turn came first, nor a turn never come because a month ends.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import structlog

from billing.budget import Lane
from billing.services import Services
from billing.usage import CustomerId, Period
from workers.flush.flush import flush
from workers.flush.policy import FlushPorts

log = structlog.get_logger(__name__)

SLOTS = 10
# Waiting for Stripe in the whole fleet; more would only wait with a lease in hand.
LINE_SECONDS = 2.0

Claim = Callable[[int, int, int], Awaitable[list[tuple[CustomerId, Period]]]]
Flushes = set["asyncio.Task[None]"]


@dataclass
class Work:
    """What this process is doing: its services, the flushes that run, the loops; *ending* stops them."""

    services: Services
    ports: FlushPorts
    first: Flushes = field(default_factory=set)
    in_turn: Flushes = field(default_factory=set)
    loops: list[asyncio.Task[None]] = field(default_factory=list)
    ending: asyncio.Event = field(default_factory=asyncio.Event)
    ended: float = 0.0  # when that was, by the monotonic clock

    @property
    def flushes(self) -> Flushes:
        """Those that nobody's wake-up started."""
        return self.first | self.in_turn

    def end(self) -> None:
        """Begin nothing more, neither a flush nor a call to Stripe; what was sent is waited for."""
        if not self.ending.is_set():
            self.ended = time.monotonic()
            self.ending.set()
        self.services.budget.close()


async def dispatch(work: Work) -> bool:
    """Claim and flush what is due, where somebody has waited longest first; whether anything was found.

    It does not pass through the queue: what waits there is somebody, and waits behind nobody's turn.
    """
    ledger = work.services.ledger
    lines, waits = await work.services.budget.backlog(), await ledger.waits()
    found = False
    if lines[Lane.CLOSE] <= LINE_SECONDS:
        found = await _take(work, work.first, ledger.claim_first, [each.first for each in waits])
    if lines[Lane.INTERVAL] <= LINE_SECONDS:
        due = [each.due for each in waits]
        found = await _take(work, work.in_turn, ledger.claim, due) or found
    return found


async def _take(work: Work, flushes: Flushes, claim: Claim, waited: Sequence[int | None]) -> bool:
    """Fill the slots of *flushes* from the shards in which somebody has *waited*."""
    # A customer claimed by a worker that dies comes up again, when its lease may still run.
    hidden_ms = work.ports.policy.lease // 2
    found = False
    late = sorted((-ms, shard) for shard, ms in enumerate(waited) if ms is not None and ms >= 0)
    for _, shard in late:
        free = SLOTS - len(flushes)
        if free <= 0 or work.ending.is_set():
            break
        for customer, period in await claim(shard, free, hidden_ms):
            flushing = asyncio.create_task(_flush(work, customer, period))
            flushes.add(flushing)
            flushing.add_done_callback(flushes.discard)
            found = True
    return found


async def _flush(work: Work, customer: CustomerId, period: Period) -> None:
    try:
        await flush(customer, period, work.ports, lane=Lane.INTERVAL)
    except Exception:
        log.exception("worker.flush_failed", customer=customer)
