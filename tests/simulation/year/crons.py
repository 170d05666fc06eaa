"""Crons, and the webhooks that arrive between them."""

from typing import TYPE_CHECKING

from billing.errors import Unavailable
from billing.event_ingestion import ingest
from billing.events.effects import EventRef
from billing.ledger import keys
from tests.simulation.wire import HOUR_MS
from tests.simulation.world import SETTLE_MS
from workers.flush.closing import close_ended_periods
from workers.poll_events import poll_events
from workers.process_events import process_events
from workers.reconcile import reconcile

if TYPE_CHECKING:
    from tests.simulation.year.world import YearWorld

TEN_DAYS_MS = 240 * HOUR_MS


class Crons:
    """What workers do by the clock; *shards* are those that have customers."""

    def __init__(self, world: "YearWorld", shards: tuple[int, ...]) -> None:
        self._world = world
        self._shards = shards
        self._deaf = world.rng.choice([0.0, 0.2, 1.0])  # share of webhooks that never arrive
        self._polled_ms = world.now
        self.poll_requested = False

    async def run_jobs(self) -> None:
        """Cut what has ended and compare what is old, by a clock that may be wrong; poll now and then."""
        skew = (
            self._world.rng.choice([-26 * HOUR_MS, 0, HOUR_MS, 40 * 24 * HOUR_MS])
            * self._world.kind.clocks
        )
        here = self._world.now + (0 if self._world.recovering else skew)
        self._world.counts["periods cut"] += await close_ended_periods(
            self._world.ledger, self._shards, now_ms=here, settle_ms=SETTLE_MS
        )
        await reconcile(self._world.ledger, now_ms=self._world.now)
        overdue = self._world.now - self._polled_ms > TEN_DAYS_MS
        if self.poll_requested or overdue or self._world.rng.random() < 0.2:
            self.poll_requested, self._polled_ms = False, self._world.now
            try:
                self._world.counts["events polled"] += await poll_events(self._world.services)
            except Unavailable:
                self._polled_ms = 0

    async def deliver(self) -> None:
        """Deliver webhooks, in any order, some of them twice, and some never."""
        waiting = [event for event in self._world.stripe.events[-40:] if not event["delivered"]]
        for event in self._world.rng.sample(waiting, min(len(waiting), 6)):
            if self._world.rng.random() >= self._deaf:
                event["delivered"] = self._world.rng.random() < 0.9
                await ingest(self._world.services, [EventRef.from_payload(event)])

    async def process(self) -> None:
        """Process events that wait; a pause before a retry is over by now."""
        for subject in await self._world.redis.zrange(keys.inbox_due(), 0, -1):
            await self._world.redis.zadd(keys.inbox_due(), {subject: 0})
        for _ in range(10):
            if not await process_events(self._world.services, 1):
                break
