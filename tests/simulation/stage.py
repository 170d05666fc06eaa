"""A stage: the small world without random failures, for schedules that are written by hand."""

from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count

from redis.asyncio import Redis

from billing.errors import Refused
from billing.ledger import NewAdjustment
from billing.usage import Period, UsageDelta
from tests.simulation.people import CUSTOMERS
from tests.simulation.wire import HOUR_MS, Fault
from tests.simulation.workers import Worker
from tests.simulation.world import Mode, World
from workers.flush.outcome import FlushResult

OCTOBER, NOVEMBER = Period(2026, 10), Period(2026, 11)
CUSTOMER = CUSTOMERS[0]


class Stage(World):
    """A world without random failures; it begins on 30 October."""

    def __init__(self, mode: Mode, redis: Redis, epochs: dict[int, bytes]) -> None:
        super().__init__(0, mode, redis, epochs)
        self.now = int(datetime(2026, 10, 30, tzinfo=UTC).timestamp() * 1000)
        self.unreported = []
        self.fates: deque[Fault | None] = deque()
        self._numbers = count(1)

    def next_fault(self) -> Fault | None:
        """Return the schedule's faults, one per write; afterwards none."""
        return self.fates.popleft() if self.fates else None

    def next_read_fails(self) -> bool:
        """Reads never fail."""
        return False

    async def record(self, quantity: int, *, at: datetime | None = None) -> None:
        """Record usage of now, or of *at*."""
        number, moment = next(self._numbers), at or self.current_time()
        await self.report(
            [UsageDelta(f"event-{number}", CUSTOMER, "a", Decimal(quantity), moment, None)]
        )

    async def flush(
        self, period: Period = OCTOBER, *, fates: Iterable[Fault | None] = ()
    ) -> FlushResult:
        """Run a whole flush whose writes have the faults *fates*."""
        self.fates.extend(fates)
        worker = Worker(self, CUSTOMER, period)
        await worker.run()
        return worker.result

    async def adjust(self, quantity: int = -1) -> None:
        """Adjust October, if it still accepts an adjustment."""
        key = f"key-{next(self._numbers)}"
        requested = NewAdjustment(CUSTOMER, "b", Decimal(quantity), "why", "support", key, OCTOBER)
        with suppress(Refused):
            self.oracle.record_adjustment(
                await self.ledger.adjustments.create(requested, self.prices["b"]), requested
            )

    async def recover_by_replay(self, *flushed: Period) -> None:
        """Replay all usage; the hold must end by itself as the periods are *flushed*."""
        await self.machine.replay()
        for period in flushed:
            await self.flush(period)
        hold = await self.ledger.holds.get(CUSTOMER)
        self.oracle.require(hold is None, f"still on hold: {hold}")
        self.oracle.check_not_lowered()

    async def end_october(self) -> None:
        """End and close October."""
        await self._advance(int(OCTOBER.end.timestamp() * 1000) + 2 * HOUR_MS - self.now)
        await self._cron()

    async def play(self, schedule: "Schedule") -> None:
        """Run *schedule*, then recover and check."""
        await self._begin()
        await schedule(self)
        await self._recover()


Schedule = Callable[[Stage], Awaitable[None]]
