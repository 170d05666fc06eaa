"""Directed schedules, for protections whose absence random schedules rarely or never notice.

Each ends well with the protection, and in a Violation without it.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count

from redis.asyncio import Redis

from billing.errors import LeaseLost, Refused
from billing.ledger import NewAdjustment, keys
from billing.usage import Period, UsageDelta
from tests.simulation.people import CUSTOMERS
from tests.simulation.run import Simulation, small
from tests.simulation.stripe_model import HOUR_MS, Fault
from tests.simulation.workers import Worker
from tests.simulation.world import QUIET_MS, Mode, World
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


async def update_abandoned_as_the_period_ends(stage: Stage) -> None:
    """The last update is late, its repetition is refused; it arrives after the lines were planned again."""
    await stage.record(4)
    await stage.flush()
    await stage.record(2)
    await stage.end_october()
    await stage.flush(fates=[Fault.LATE])
    await stage.flush(fates=[Fault.REFUSED])


async def addition_abandoned_during_the_period(stage: Stage) -> None:
    """A line is added twice: the first request arrives long after the second."""
    await stage.record(4)
    await stage.flush(fates=[None, Fault.LATE])
    await stage.flush(fates=[Fault.REFUSED])
    await stage._advance(QUIET_MS)
    await stage._drain("after the late request")


async def late_usage_of_an_empty_period(stage: Stage) -> None:
    """An invoice for October would be finalized as soon as it was created."""
    await stage.end_october()
    await stage.record(2, at=OCTOBER.end - timedelta(hours=1))


async def period_lost_by_the_ledger(stage: Stage) -> None:
    """Late usage was billed in November; then the ledger is restored to when October was open."""
    await stage.record(4)
    await stage.flush()
    await stage.machine.back_up()
    await stage.end_october()
    await stage.record(2, at=OCTOBER.end - timedelta(hours=1))
    await stage.flush(NOVEMBER)
    await stage.machine.rewind()


async def doubt_lost_by_a_rewind(stage: Stage) -> None:
    """Three updates are late, the last under a key that the restored ledger does not issue again."""
    await stage.record(4)
    await stage.flush()
    await stage.record(2)
    await stage.end_october()
    await stage.machine.back_up()
    await stage.flush(fates=[Fault.LATE])
    await stage.flush(fates=[Fault.REFUSED, Fault.LATE])
    await stage.flush(fates=[Fault.REFUSED, Fault.LATE])
    await stage.machine.rewind()
    await stage.flush()


async def fence_issued_twice(stage: Stage) -> None:
    """The restored counter issues the same number to a worker before and one after the restore."""
    await stage.record(4)
    await stage.machine.back_up()
    zombie = await stage.ledger.leases.acquire(CUSTOMER, OCTOBER)
    await stage.machine.rewind()
    heir = await stage.ledger.leases.acquire(CUSTOMER, OCTOBER)
    assert zombie is not None
    assert heir is not None
    numbers = [leased.lease.fence.partition(":")[0] for leased in (zombie, heir)]
    assert numbers == ["1", "1"]
    try:
        await stage.ledger.leases.renew(zombie.lease)
    except LeaseLost:
        await stage.ledger.leases.release(heir.lease)
    else:
        stage.oracle.require(False, "a zombie has its lease back")


def adjusted_before(step: int) -> Schedule:
    """Make an adjustment before call number *step* of the flush that closes the period."""

    async def schedule(stage: Stage) -> None:
        await stage.record(4)
        await stage.end_october()
        closing = Worker(stage, CUSTOMER, OCTOBER)
        await closing.wait_idle()
        for _ in range(step):
            if not closing.done:
                await closing.step()
        await stage.adjust()
        await closing.run()

    return schedule


async def adjusted_while_a_finalization_may_arrive(stage: Stage) -> None:
    """A finalization is abandoned because its repetition was refused, and arrives after the adjustment."""
    await stage.record(4)
    await stage.flush()
    await stage.end_october()
    await stage.flush(fates=[Fault.LATE])
    await stage.flush(fates=[Fault.REFUSED])
    await stage.adjust()


async def draft_used_by_a_person_as_it_is_deleted(stage: Stage) -> None:
    """The deletion of the empty draft is lost; a person adds a line before another worker resumes it."""
    await stage.record(4)
    await stage.flush()
    await stage.record(-4)
    await stage.flush()
    await stage.end_october()
    await stage.flush(fates=[Fault.LOST_REQUEST])
    (draft,) = stage.stripe.invoices.values()
    line = stage.stripe.foreign_line(500)
    draft["lines"].append(line)
    stage.oracle.record_foreign_line(draft["id"], line)
    await stage.flush()


async def carry_to_a_month_that_is_synced(stage: Stage) -> None:
    """A person finalizes October while usage of it waits; what the bill lacks goes to November."""
    await stage.record(4)
    await stage.flush()
    await stage._advance(int(OCTOBER.end.timestamp() * 1000) + HOUR_MS // 2 - stage.now)
    await stage.record(3)
    await stage.flush(NOVEMBER)
    await stage.record(2, at=OCTOBER.end - timedelta(hours=1))
    draft = next(iter(stage.stripe.invoices.values()))
    stage.stripe.finalize(draft)
    for _ in range(3):
        await stage.flush()


async def flush_of_a_forgotten_month(stage: Stage) -> None:
    """October is sealed, its retention passes, and somebody wakes it once more."""
    await stage.record(4)
    await stage.end_october()
    await stage._drain("October is sealed")
    pattern = f"{keys.period(CUSTOMER, OCTOBER)}*"
    expiring = {name: await stage.redis.dump(name) async for name in stage.redis.scan_iter(pattern)}
    await stage.redis.delete(*expiring)
    await stage.flush()
    await stage._drain("October is forgotten")
    for name, content in expiring.items():  # for the oracle, which adds up all months
        await stage.redis.restore(name, 0, content, replace=True)


async def restored_without_replay(stage: Stage) -> None:
    """The draft has usage that the restored ledger lacks, until producers send it again."""
    await stage.record(4)
    await stage.flush()
    await stage.machine.back_up()
    await stage.record(3)
    await stage.flush()
    stage.oracle.record_billed()
    await stage.machine.restore()
    await stage.record(2)
    await stage.flush()
    stage.oracle.check_not_lowered()
    await stage.recover_by_replay(OCTOBER)


async def emptied_without_replay(stage: Stage) -> None:
    """October is billed and November has a draft; the new ledger knows neither."""
    await stage.record(4)
    await stage.flush()
    await stage.end_october()
    await stage.flush()
    await stage.record(3)
    await stage.flush(NOVEMBER)
    stage.oracle.record_billed()
    await stage.machine.empty()
    await stage.record(1)
    for _ in range(3):
        await stage.flush(NOVEMBER)
        await stage._advance(HOUR_MS)
        await stage._cron()
        await stage.flush()
    stage.oracle.check_not_lowered()
    await stage.recover_by_replay(NOVEMBER, OCTOBER, NOVEMBER)


async def price_archived_while_usage_waits(stage: Stage) -> None:
    """A line at the price exists, and late usage and the next month need new ones."""
    await stage.record(4)
    await stage.flush()
    stage.archive_price("a")
    await stage.record(3)
    await stage.flush()
    await stage.end_october()
    await stage.record(5, at=OCTOBER.end - timedelta(hours=1))
    await stage.record(1)
    await stage.flush(NOVEMBER)
    await stage.record(1)


async def frozen_worker_reads_its_successor(stage: Stage) -> None:
    """A worker freezes before it reads the draft; meanwhile another one bills more than the first knows."""
    await stage.record(4)
    await stage.flush()
    await stage.ledger.periods.request_verify(CUSTOMER, OCTOBER)
    frozen = Worker(stage, CUSTOMER, OCTOBER)
    await frozen.wait_idle()
    for _ in range(2):
        await frozen.step()  # the lease, and its renewal before the read
    await stage._advance(2 * 60_000)
    await stage.record(3)
    await stage.flush()
    await frozen.run()
    hold = await stage.ledger.holds.get(CUSTOMER)
    stage.oracle.require(hold is None, f"held without a loss: {hold}")


async def credit_that_lost_a_part(stage: Stage) -> None:
    """A line is a credit of 2; the restored ledger lacks one unit of usage and would credit 3."""
    await stage.record(-3)
    await stage.flush()
    await stage.machine.back_up()
    await stage.record(1)
    await stage.flush()
    stage.oracle.record_billed()
    await stage.machine.restore()
    await stage.ledger.periods.request_verify(CUSTOMER, OCTOBER)
    await stage.flush()
    stage.oracle.check_not_lowered()
    await stage.recover_by_replay(OCTOBER)


async def number_of_a_lost_correction(stage: Stage) -> None:
    """A correction is lost with its number, and the next one gets it."""
    await stage.record(4)
    await stage.flush()
    await stage.machine.back_up()
    await stage.adjust(2)
    await stage.flush()
    stage.oracle.record_billed()
    await stage.machine.restore()
    stage.oracle.forget_adjustments()
    await stage.adjust(-1)
    await stage.flush()
    stage.oracle.check_not_lowered()


REFUSALS = Mode(refusals=True)
ADJUSTED = tuple(adjusted_before(step) for step in range(40))  # the last ones come when all is over
DIRECTED: dict[str, tuple[Mode, *tuple[Schedule, ...]]] = {
    "nothing is finalized without a correction made meanwhile": (Mode(), *ADJUSTED),
    "a bill that is being finalized takes no correction": (Mode(), *ADJUSTED),
    "a bill that is final takes no correction": (Mode(), *ADJUSTED),
    "a bill that may yet become final takes no correction": (
        REFUSALS,
        adjusted_while_a_finalization_may_arrive,
    ),
    "late usage begins no month that has ended": (Mode(), late_usage_of_an_empty_period),
    "a request without an answer may still arrive": (REFUSALS, update_abandoned_as_the_period_ends),
    "nothing is finalized while a request may still arrive": (
        REFUSALS,
        update_abandoned_as_the_period_ends,
    ),
    "a deletion is decided anew when it is resumed": (
        Mode(),
        draft_used_by_a_person_as_it_is_deleted,
    ),
    "what is left raises the version of the period that it goes to": (
        Mode(),
        carry_to_a_month_that_is_synced,
    ),
    "no flush begins a month that is forgotten": (Mode(), flush_of_a_forgotten_month),
    "a draft is looked at once more when a request was given up": (
        REFUSALS,
        addition_abandoned_during_the_period,
    ),
    "Stripe reminds the ledger of a period it has lost": (
        Mode(rewinds=True),
        period_lost_by_the_ledger,
    ),
    "a ledger that has lost usage gives nothing back": (
        Mode(rewinds=True),
        restored_without_replay,
        emptied_without_replay,
        credit_that_lost_a_part,
        number_of_a_lost_correction,
    ),
    "a hold for lost usage is placed by the lease's worker": (
        Mode(),
        frozen_worker_reads_its_successor,
    ),
    "an archived price bills no new line": (Mode(), price_archived_while_usage_waits),
    "an amount of ours is read back as its quantity": (Mode(), price_archived_while_usage_waits),
    "a rewound server is noticed": (Mode(rewinds=True), doubt_lost_by_a_rewind),
    "a lease is fenced": (Mode(rewinds=True), fence_issued_twice),
    "a fence is more than a counter": (Mode(rewinds=True), fence_issued_twice),
}
"""By name of the protection in ``mutations``."""


async def play(simulation: Simulation, protection: str) -> None:
    """Run the schedules for *protection*; raises Violation if one fails."""
    mode, *schedules = DIRECTED[protection]
    for schedule in schedules:
        with small(mode):
            await Stage(mode, simulation.redis, simulation.epochs).play(schedule)
