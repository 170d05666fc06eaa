"""The real budget in virtual time: its scripts run on a real server, and nobody sleeps.

An event loop whose clock jumps to the next timer, and a limiter whose scripts take that clock for the server's.
"""

import asyncio
import selectors
from collections.abc import Mapping, Sequence
from typing import Any

from redis import Redis

from billing.budget import Budget
from billing.budget.policy import BudgetPolicy

SERVER_CLOCK = "local time = redis.call('TIME')\n    return time[1] * 1000000 + time[2]"
VIRTUAL_CLOCK = "return tonumber(ARGV[2])"
ROUND_TRIP_SECONDS = 0.0005
BEGIN = 1_800_000_000  # seconds since 1970


class VirtualSelector(selectors.SelectSelector):
    """Waits for nothing: *now* moves by what it was to wait for."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        """Move the clock; a loop without a timer would wait for ever."""
        if timeout is None:
            raise RuntimeError("nothing will ever happen")
        self.now += max(timeout, 0)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time; its tasks must not wait for a socket."""

    def __init__(self) -> None:
        self._virtual = VirtualSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._virtual.now


class _Script:
    """A script of the budget on the virtual clock."""

    def __init__(self, redis: Redis, source: str) -> None:
        if SERVER_CLOCK not in source:
            raise LookupError("the scripts read the server's clock in another way now")
        self._run = redis.register_script(source.replace(SERVER_CLOCK, VIRTUAL_CLOCK))

    async def __call__(self, keys: Sequence[str], args: Sequence[bytes]) -> Any:
        await asyncio.sleep(ROUND_TRIP_SECONDS)
        now_us = round((BEGIN + asyncio.get_running_loop().time()) * 1e6)
        return self._run(keys=keys, args=[*args, now_us])


def virtual_budget(redis: Redis, policy: BudgetPolicy) -> Budget:
    """Return the budget of one process; all on the same *redis* share its limits."""
    budget: Any = Budget(redis, policy)  # type: ignore[arg-type] # only its scripts are run
    limiter: Any = budget._redis_limiter  # noqa: SLF001
    for name in ("_acquire_script", "_release_script"):
        source = getattr(limiter, name).script
        setattr(limiter, name, _Script(redis, source))
    real_budget: Budget = budget
    return real_budget


def waiting_seconds(budgets: Sequence[Budget], lane: str, rate: float) -> float:
    """Return how long the calls of all processes in *lane* wait, as the dispatcher sees it."""
    waiting: list[Mapping[Any, int]] = [budget._waiting for budget in budgets]  # noqa: SLF001
    calls = sum(count for counts in waiting for queue, count in counts.items() if queue[1] == lane)
    return calls / rate
