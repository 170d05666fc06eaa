"""Producers: they send each delta until it is acknowledged, some twice, some late, and replay after a loss."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from billing.errors import ErrorCode, Unavailable
from billing.usage_ingestion import record_usage
from billing.usage_validation import RawDelta
from tests.simulation.wire import DAY_MS, HOUR_MS
from tests.simulation.year.catalog import SKUS

if TYPE_CHECKING:
    from tests.simulation.year.world import YearWorld

STRAY = 0.02  # deltas whose SKU may be in another currency than the customer's
QUARTER_MS = HOUR_MS // 4
GIVE_UP = {ErrorCode.INVALID_INPUT, ErrorCode.NOT_FOUND}
QUANTITIES = ("1", "2.5", "0.000000000001", "7", "-3", "120.25", "-0.5", "0.004", "10")


class Memory(StrEnum):
    """What producers send again after the ledger was replaced."""

    ALL = "all"
    QUARTER = "the last 15 minutes"
    NOTHING = "nothing"


@dataclass
class Sent:
    """A delta that was acknowledged at *at_ms*."""

    delta: RawDelta
    at_ms: int


class Producers:
    """All metering services together."""

    def __init__(self, world: "YearWorld", memory: Memory) -> None:
        self._world = world
        self.memory = memory
        self.waiting: list[RawDelta] = []
        self.sent: list[Sent] = []
        self._count = 0
        self.lost_at_ms: int | None = None

    async def report(self) -> None:
        """Report what happened, what waits, and something again."""
        rng = self._world.rng
        self.waiting += [self._delta() for _ in range(rng.randrange(1, 4))]
        again = [sent.delta for sent in rng.sample(self.sent, min(len(self.sent), 2))]
        batch = self.waiting[:10] + again[: rng.randrange(3)]
        rng.shuffle(batch)
        await self.send(batch)

    async def send(self, batch: list[RawDelta]) -> None:
        """Send *batch*; what was acknowledged or refused for good is not sent again."""
        world = self._world
        try:
            report = await record_usage(world.services, batch)
        except Unavailable:
            world.counts["reports that failed"] += 1
            return
        world.counts["deltas accepted"] += report.accepted
        world.counts["deltas repeated"] += report.duplicates
        if world.rng.random() < 0.1:
            return  # the answer is lost
        refused = {rejection.id: rejection.error for rejection in report.rejected}
        for delta in batch:
            error = refused.get(delta.id)
            if error is None:
                self._acknowledge(delta)
            elif error.code in GIVE_UP:
                world.counts[f"deltas refused: {error.path and error.path[0]}"] += 1
                self.waiting = [other for other in self.waiting if other.id != delta.id]
            else:
                world.counts[f"deltas that wait: {error.code}"] += 1

    async def replay(self) -> None:
        """Send again what was acknowledged and may be lost, as far as producers remember it."""
        if self.lost_at_ms is None:
            return
        since = {
            Memory.ALL: 0,
            Memory.QUARTER: self.lost_at_ms - QUARTER_MS,
            Memory.NOTHING: self.lost_at_ms + 1,
        }[self.memory]
        replayed = [sent.delta for sent in self.sent if since <= sent.at_ms <= self.lost_at_ms]
        self._world.rng.shuffle(replayed)
        for at in range(0, len(replayed), 50):
            await self.send(replayed[at : at + 50])
        self._world.counts["deltas replayed"] += len(replayed)
        self.lost_at_ms = None

    def _acknowledge(self, delta: RawDelta) -> None:
        self.waiting = [other for other in self.waiting if other.id != delta.id]
        if all(sent.delta.id != delta.id for sent in self.sent):
            self.sent.append(Sent(delta, self._world.now))

    def _delta(self) -> RawDelta:
        rng, world = self._world.rng, self._world
        if self.sent and rng.random() < 0.15:
            quantity, like = "", rng.choice(self.sent[-20:]).delta
            quantity = like.quantity[1:] if like.quantity.startswith("-") else f"-{like.quantity}"
            customer, sku, at = like.customer_id, like.sku, like.occurred_at
        else:
            quantity, customer = rng.choice(QUANTITIES), rng.choice(world.customers)
            stray = rng.random() < STRAY
            home = [sku for sku, code in SKUS.items() if stray or code == world.home[customer]]
            sku = rng.choice(home)
            at = (world.current_time() - timedelta(milliseconds=self._age_ms())).isoformat()
        self._count += 1
        app = rng.choice([None, "web", "worker"])
        return RawDelta(f"event-{self._count}", customer, sku, quantity, at, app)

    def _age_ms(self) -> int:
        rng = self._world.rng
        chance = rng.random()
        if chance < 0.75:
            return rng.randrange(HOUR_MS)
        return rng.randrange(DAY_MS) if chance < 0.9 else rng.randrange(34 * DAY_MS)
