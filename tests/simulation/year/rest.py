"""The end of a schedule: the troubles stop, people decide what waits for them, and all months end."""

from typing import TYPE_CHECKING

from billing.invoicing.snapshot import PeriodState
from tests.simulation.wire import HOUR_MS
from tests.simulation.world import MINUTE_MS
from tests.simulation.year.ending import Ending

if TYPE_CHECKING:
    from tests.simulation.year.world import YearWorld

ROUNDS = 60
MONTHS = 14  # a person who finalizes draft after draft moves usage to later months


async def rest(world: "YearWorld") -> None:
    """Bring everything to rest, month after month, until no month is left to bill; check it all."""
    world.recovering = True
    await world.server.come_back()
    await world.advance(2 * HOUR_MS)
    await world.producers.replay()
    for _ in range(MONTHS):
        await world.producers.send(list(world.producers.waiting))
        await drain(world)
        end = int(world.current_month().end.timestamp() * 1000) + 2 * HOUR_MS
        if not await _unsealed(world):
            break
        await world.advance(end - world.now)
    await drain(world)
    left = await _unsealed(world)
    world.oracle.require(not left, f"never sealed: {left}")
    await Ending(world, world.oracle).check()


async def drain(world: "YearWorld") -> None:
    """Flush until nothing is due; people act on what waits for them."""
    for _ in range(ROUNDS):
        world.crons.poll_requested = True
        await world.tick()
        if not world.crew.running and not await world.due() and not await world.operator.decide():
            await _check_idle(world)
            return
        await world.operator.decide()
        await world.advance(30 * MINUTE_MS)
    world.oracle.require(False, f"still due: {await world.due()}")


async def _check_idle(world: "YearWorld") -> None:
    for customer in world.customers:
        for month in await world.ledger.periods.list_retained(customer):
            snapshot = await world.ledger.periods.snapshot(customer, month)
            waits = snapshot.state is not PeriodState.SEALED and not snapshot.parked_reason
            idle = snapshot.version == snapshot.synced_version and snapshot.batch is None
            world.oracle.require(idle or not waits, f"{customer} {month} is forgotten")
            if waits and snapshot.up_to_date:
                world.oracle.check_draft(snapshot)


async def _unsealed(world: "YearWorld") -> list[str]:
    return [
        f"{customer} {month}"
        for customer in world.customers
        if not world.stripe.customers[customer].get("deleted")
        for month in await world.ledger.periods.list_retained(customer)
        if (await world.ledger.periods.snapshot(customer, month)).state is not PeriodState.SEALED
    ]
