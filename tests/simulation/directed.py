"""Directed schedules, for protections whose absence random schedules rarely or never notice.

Each ends well with the protection, and in a Violation without it.
"""

from datetime import timedelta

from billing.ledger import keys
from tests.simulation.directed_losses import (
    credit_that_lost_a_part,
    doubt_lost_by_a_rewind,
    emptied_without_replay,
    fence_issued_twice,
    frozen_worker_reads_its_successor,
    number_of_a_lost_correction,
    period_lost_by_the_ledger,
    restored_without_replay,
)
from tests.simulation.run import Simulation, small
from tests.simulation.stage import CUSTOMER, NOVEMBER, OCTOBER, Schedule, Stage
from tests.simulation.wire import HOUR_MS, Fault
from tests.simulation.workers import Worker
from tests.simulation.world import QUIET_MS, Mode


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


async def addition_under_way_as_the_server_restarts(stage: Stage) -> None:
    """A restart gives up the request that adds a line; it arrives after its successor."""
    await stage.record(4)
    await stage.flush(fates=[None, Fault.LATE])
    await stage.machine.new_epoch()
    await stage.flush()
    await stage._advance(QUIET_MS)
    stage.oracle.require(stage.oracle.duplicates_found > 0, "the late request changed nothing")
    await stage._drain("after the late request")


async def late_usage_of_an_empty_period(stage: Stage) -> None:
    """An invoice for October would be finalized as soon as it was created."""
    await stage.end_october()
    await stage.record(2, at=OCTOBER.end - timedelta(hours=1))


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
    "a request that a restart gave up may still arrive": (
        REFUSALS,
        addition_under_way_as_the_server_restarts,
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
