"""The workers of one schedule: a few flushes at a time, each of which may die at any call."""

from typing import TYPE_CHECKING

from billing.budget import Lane
from billing.usage import CustomerId, Period
from tests.simulation.workers import Worker

if TYPE_CHECKING:
    from tests.simulation.year.world import YearWorld

MAX_WORKERS = 5


class Crew:
    """*running* are the flushes under way; *shards* those that have customers."""

    def __init__(self, world: "YearWorld", shards: tuple[int, ...]) -> None:
        self._world = world
        self._shards = shards
        self._crash_rate = world.rng.choice([0, 0.01, 0.03])
        self.running: list[Worker] = []

    async def start(self, customer: CustomerId, period: Period, lane: Lane = Lane.INTERVAL) -> None:
        """Start a flush, unless too many run."""
        if len(self.running) < MAX_WORKERS:
            worker = Worker(self._world, customer, period, lane)
            self.running.append(worker)
            await worker.wait_idle()

    async def stop(self) -> None:
        """End all workers."""
        for worker in self.running:
            await worker.die()
        self.running = []

    async def run(self, worker: Worker, steps: int) -> None:
        """Run up to *steps* calls of a worker; it may die."""
        for _ in range(steps):
            if worker.done:
                break
            if not self._world.recovering and self._world.rng.random() < self._crash_rate:
                self._world.counts["worker deaths"] += 1
                await worker.die()
            else:
                await worker.step()
        self.running = [other for other in self.running if not other.done]

    async def dispatch(self, *, hidden_ms: int) -> None:
        """Start flushes of what is due."""
        for shard in self._shards:
            free = MAX_WORKERS - len(self.running)
            if free > 0:
                for claim in (self._world.ledger.due.claim_priority, self._world.ledger.due.claim):
                    for customer, period in await claim(shard, free, hidden_ms):
                        await self.start(customer, period)
