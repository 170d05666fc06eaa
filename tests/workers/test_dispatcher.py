"""A worker takes what is due, no more than it has slots for, and keeps the queue for those who wait."""

import asyncio
from dataclasses import replace
from typing import Any

from redis.asyncio import Redis

from billing.budget import Budget, Lane
from billing.budget.call import Call
from billing.budget.policy import Allowance, BudgetPolicy
from billing.job_queue import QUEUE
from billing.ledger import Ledger
from billing.redis_reply import reply
from tests.support.system import until
from tests.support.webhook_server import World, due
from workers.dispatcher import LINE_SECONDS, SLOTS, Work, dispatch
from workers.main import flush_ports

DRAFTS = "POST /v1/invoices"


class GatedLedger:
    """The real ledger behind a gate: no flush begins before it opens."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.gate = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    async def acquire(self, *args: Any, **options: Any) -> Any:
        """As the ledger, once the gate is open."""
        await self.gate.wait()
        return await self._ledger.acquire(*args, **options)


async def test_a_worker_takes_no_more_than_it_has_slots_for(deaf: World) -> None:
    """What it cannot flush now stays due, for itself or for another worker."""
    ledger = GatedLedger(deaf.services.ledger)
    work = Work(deaf.services, replace(flush_ports(deaf.services), ledger=ledger))
    await due(deaf, SLOTS + 3)

    assert await dispatch(work)
    assert len(work.flushes) == SLOTS
    assert not await dispatch(work)
    ledger.gate.set()
    await asyncio.gather(*work.flushes)
    assert await deaf.sandbox.calls(DRAFTS) == SLOTS

    assert await dispatch(work)
    await asyncio.gather(*work.flushes)
    assert await deaf.sandbox.calls(DRAFTS) == SLOTS + 3


async def test_what_is_due_in_its_turn_fills_no_queue(deaf: World, redis: Redis) -> None:
    """A wake-up in the queue is somebody who waits; nobody's turn may stand before it."""
    ledger = GatedLedger(deaf.services.ledger)
    work = Work(deaf.services, replace(flush_ports(deaf.services), ledger=ledger))
    await due(deaf, 3)

    await dispatch(work)

    assert len(work.flushes) == 3
    assert await reply(redis.zcard(QUEUE)) == 0
    ledger.gate.set()
    await asyncio.gather(*work.flushes)


async def test_a_month_closes_beside_everybodys_turn(deaf: World) -> None:
    """Ten thousand flushes that are due sooner must not make it late, nor it them: each has slots."""
    ledger = GatedLedger(deaf.services.ledger)
    work = Work(deaf.services, replace(flush_ports(deaf.services), ledger=ledger))
    last = (await due(deaf, SLOTS + 1))[-1]
    period = await deaf.services.ledger.open_period(last)
    await deaf.services.ledger.close(last, period)

    await dispatch(work)

    assert (len(work.first), len(work.in_turn)) == (1, SLOTS)
    ledger.gate.set()
    await asyncio.gather(*work.flushes)
    assert (await deaf.services.ledger.peek(last, period)).invoice is not None


async def test_a_worker_leaves_due_what_stripe_has_no_room_for(deaf: World, redis: Redis) -> None:
    """Ten workers with ten leases each, all waiting for the same limit, would only time out.

    A period that closes waits in another lane, and is taken.
    """
    policy = replace(BudgetPolicy.of(deaf.services.settings), endpoint=Allowance(1, 2))
    budget = Budget(redis, policy)
    services = replace(deaf.services, budget=budget)
    work = Work(services, flush_ports(services))
    _, closing = await due(deaf, 2)
    line = [asyncio.create_task(_wait(budget, f"in_{n}")) for n in range(5)]

    async def crowded() -> bool:
        return (await budget.backlog())[Lane.INTERVAL] > LINE_SECONDS

    await until(crowded, "calls wait")

    assert not await dispatch(work)
    assert not work.flushes
    await deaf.services.ledger.close(closing, await deaf.services.ledger.open_period(closing))
    assert await dispatch(work)
    assert (len(work.first), len(work.in_turn)) == (1, 0)
    await asyncio.gather(*work.flushes)

    for waiting in line:
        waiting.cancel()
    await asyncio.gather(*line, return_exceptions=True)


async def _wait(budget: Budget, invoice: str) -> None:
    async with budget.admission(Call.of("POST", f"/v1/invoices/{invoice}/pay"), Lane.INTERVAL):
        await asyncio.Event().wait()
