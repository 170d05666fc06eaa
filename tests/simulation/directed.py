"""Schedules made by hand, one for each protection that random ones rarely or never find missing.

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
from billing.ledger import NewAdjustment
from billing.usage import Period, UsageDelta
from tests.simulation.people import CUSTOMERS
from tests.simulation.run import Simulation, small
from tests.simulation.stripe_model import HOUR_MS, Fault
from tests.simulation.workers import Worker
from tests.simulation.world import QUIET_MS, Mode, World
from workers.flush.outcome import Ending

OCTOBER, NOVEMBER = Period(2026, 10), Period(2026, 11)
CUSTOMER = CUSTOMERS[0]


class Stage(World):
    """A world in which only that happens which a schedule says; it begins on 30 October."""

    def __init__(self, mode: Mode, redis: Redis, epochs: dict[int, bytes]) -> None:
        super().__init__(0, mode, redis, epochs)
        self.now = int(datetime(2026, 10, 30, tzinfo=UTC).timestamp() * 1000)
        self.unsent = []
        self.fates: deque[Fault | None] = deque()
        self._numbers = count(1)

    def next_fault(self) -> Fault | None:
        """As the schedule says, for each write in turn; afterwards all is well."""
        return self.fates.popleft() if self.fates else None

    def next_read_fails(self) -> bool:
        """Never."""
        return False

    async def use(self, quantity: int, *, at: datetime | None = None) -> None:
        """Usage of this moment, or of *at*."""
        number, moment = next(self._numbers), at or self.moment()
        await self.report(
            [UsageDelta(f"event-{number}", CUSTOMER, "a", Decimal(quantity), moment, None)]
        )

    async def flush(
        self, period: Period = OCTOBER, *, fates: Iterable[Fault | None] = ()
    ) -> Ending:
        """A worker's whole flush, whose writes meet *fates*."""
        self.fates.extend(fates)
        worker = Worker(self, CUSTOMER, period)
        await worker.run()
        return worker.result

    async def correct(self) -> None:
        """Support corrects October, if it can still be corrected."""
        key = f"key-{next(self._numbers)}"
        asked = NewAdjustment(CUSTOMER, "b", Decimal(-1), "why", "support", key, OCTOBER)
        with suppress(Refused):
            self.oracle.adjusted(await self.ledger.adjust(asked, self.prices["b"]), asked)

    async def end_october(self) -> None:
        """The month ends and is cut."""
        await self._pass(int(OCTOBER.end.timestamp() * 1000) + 2 * HOUR_MS - self.now)
        await self._cron()

    async def play(self, schedule: "Schedule") -> None:
        """*schedule*, and then everything has to come to rest."""
        await self._begin()
        await schedule(self)
        await self._heal()


Schedule = Callable[[Stage], Awaitable[None]]


async def given_up_as_the_month_ends(stage: Stage) -> None:
    """The last update is lost on its way, its repetition refused; it arrives when all is planned anew."""
    await stage.use(4)
    await stage.flush()
    await stage.use(2)
    await stage.end_october()
    await stage.flush(fates=[Fault.LATE])
    await stage.flush(fates=[Fault.REFUSED])


async def given_up_in_the_middle_of_a_month(stage: Stage) -> None:
    """A line is added twice: the first request comes when the second has long been answered."""
    await stage.use(4)
    await stage.flush(fates=[None, Fault.LATE])
    await stage.flush(fates=[Fault.REFUSED])
    await stage._pass(QUIET_MS)
    await stage._drain("after the late request")


async def late_usage_of_a_month_without_any(stage: Stage) -> None:
    """A bill for October alone would be finalized as soon as it was made."""
    await stage.end_october()
    await stage.use(2, at=OCTOBER.end - timedelta(hours=1))


async def a_month_that_only_stripe_remembers(stage: Stage) -> None:
    """Late usage was billed in November; the ledger comes back from a time when October was open."""
    await stage.use(4)
    await stage.flush()
    await stage.machine.back_up()
    await stage.end_october()
    await stage.use(2, at=OCTOBER.end - timedelta(hours=1))
    await stage.flush(NOVEMBER)
    await stage.machine.rewind()


async def a_fence_that_is_given_out_twice(stage: Stage) -> None:
    """The counter came back as it was: a worker of before and one of after hold the same number."""
    await stage.use(4)
    await stage.machine.back_up()
    zombie = await stage.ledger.acquire(CUSTOMER, OCTOBER)
    await stage.machine.rewind()
    heir = await stage.ledger.acquire(CUSTOMER, OCTOBER)
    assert zombie is not None
    assert heir is not None
    numbers = [each.lease.fence.partition(":")[0] for each in (zombie, heir)]
    assert numbers == ["1", "1"]
    try:
        await stage.ledger.renew(zombie.lease)
    except LeaseLost:
        await stage.ledger.release(heir.lease)
    else:
        stage.oracle.must(False, "a zombie has its lease back")


def corrected_before(step: int) -> Schedule:
    """A correction comes before a call of the flush that closes the month, whichever it is."""

    async def schedule(stage: Stage) -> None:
        await stage.use(4)
        await stage.end_october()
        closing = Worker(stage, CUSTOMER, OCTOBER)
        await closing.settle()
        for _ in range(step):
            if not closing.done:
                await closing.step()
        await stage.correct()
        await closing.run()

    return schedule


async def corrected_when_a_finalization_may_yet_arrive(stage: Stage) -> None:
    """It was given up, because its repetition was refused, and comes when the correction is made."""
    await stage.use(4)
    await stage.flush()
    await stage.end_october()
    await stage.flush(fates=[Fault.LATE])
    await stage.flush(fates=[Fault.REFUSED])
    await stage.correct()


REFUSING = Mode(refusals=True)
CORRECTED = tuple(
    corrected_before(step) for step in range(40)
)  # the last ones come when all is over
DIRECTED: dict[str, tuple[Mode, *tuple[Schedule, ...]]] = {
    "nothing is finalized without a correction made meanwhile": (Mode(), *CORRECTED),
    "a bill that is being finalized takes no correction": (Mode(), *CORRECTED),
    "a bill that is final takes no correction": (Mode(), *CORRECTED),
    "a bill that may yet become final takes no correction": (
        REFUSING,
        corrected_when_a_finalization_may_yet_arrive,
    ),
    "late usage begins no month that has ended": (Mode(), late_usage_of_a_month_without_any),
    "a request without an answer may still arrive": (REFUSING, given_up_as_the_month_ends),
    "nothing is finalized while a request may still arrive": (REFUSING, given_up_as_the_month_ends),
    "a draft is looked at once more when a request was given up": (
        REFUSING,
        given_up_in_the_middle_of_a_month,
    ),
    "Stripe reminds the ledger of a period it has lost": (
        Mode(rewinds=True),
        a_month_that_only_stripe_remembers,
    ),
    "a lease is fenced": (Mode(rewinds=True), a_fence_that_is_given_out_twice),
    "a fence is more than a counter": (Mode(rewinds=True), a_fence_that_is_given_out_twice),
}
"""By the name of the protection in ``mutations``."""


async def play(simulation: Simulation, protection: str) -> None:
    """The schedules of which one breaks without *protection*; raises Violation when it does."""
    mode, *schedules = DIRECTED[protection]
    for schedule in schedules:
        with small(mode):
            await Stage(mode, simulation.redis, simulation.epochs).play(schedule)
