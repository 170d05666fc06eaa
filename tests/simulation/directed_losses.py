"""Directed schedules in which the ledger loses something, or seems to."""

from datetime import timedelta

from billing.errors import LeaseLost
from tests.simulation.stage import CUSTOMER, NOVEMBER, OCTOBER, Stage
from tests.simulation.wire import HOUR_MS, Fault
from tests.simulation.workers import Worker


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
    stage.oracle.purge_adjustments()
    await stage.adjust(-1)
    await stage.flush()
    stage.oracle.check_not_lowered()


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
