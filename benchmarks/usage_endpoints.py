"""The two doors of usage beside each other: ``python -m benchmarks doors``.

Batches of 500 deltas of one customer through ``POST /usage`` and through the ``recordUsage`` mutation, four at
a time, into one gateway process over a ledger that syncs every write. Rounds alternate; told is the median,
by the clock and by the gateway's CPU time for a delta. The ledger alone is ``python -m benchmarks ledger``.
"""

import statistics
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import count

import orjson
import uvloop

from benchmarks.http_load import Run, load, post
from benchmarks.reads import Bench, opened
from billing.usage import CustomerId, LineKey, Period
from tests.support.stripe_catalog import CENTS, Shop

ROUNDS, BATCHES, BATCH, AT_ONCE = 5, 60, 500, 4
LONGEST = 60.0  # seconds; the batches run out before
RECORD = """mutation Record($deltas: [UsageDeltaInput!]!) { recordUsage(input: {deltas: $deltas}) {
  accepted duplicates rejected { id error { code } } durability ledgerEpoch } }"""
Deltas = Sequence[dict[str, str]]


def lines(deltas: Deltas, token: str) -> bytes:
    """A request of *deltas* to ``POST /usage``."""
    body = b"\n".join(orjson.dumps(delta) for delta in deltas)
    return post("/usage", body, Authorization=f"Bearer {token}")


def mutation(deltas: Deltas, token: str) -> bytes:
    """A request of *deltas* to ``recordUsage``."""
    body = orjson.dumps({"query": RECORD, "variables": {"deltas": deltas}})
    return post("/graphql", body, Accept="application/json", Authorization=f"Bearer {token}")


ENDPOINTS: dict[str, Callable[[Deltas, str], bytes]] = {
    "POST /usage": lines,
    "recordUsage": mutation,
}


async def main() -> None:
    """Run all of it and print a row for each door."""
    async with opened() as bench:
        shop = Shop(bench.services)
        await shop.open()
        bench.customer = await shop.customer()
        bench.gateway = (await bench.system.start_gateway()).pid
        runs: dict[str, list[Run]] = {name: [] for name in ENDPOINTS}
        numbers = count()
        for _ in range(ROUNDS):
            for name in ENDPOINTS:
                runs[name].append(await _run(bench, name, numbers))
        await _all_counted(bench, next(numbers))
    for name, endpoint_runs in runs.items():
        rate = statistics.median(run.rate * BATCH for run in endpoint_runs)
        micros = statistics.median(run.micros / BATCH for run in endpoint_runs)
        print(
            f"{name:12} batches of {BATCH}: {rate:8,.0f} deltas/s, {micros:5.1f} µs of the gateway's CPU a delta"
        )


async def _run(bench: Bench, endpoint: str, numbers: "count[int]") -> Run:
    token = bench.system.token("metering")
    requests = [
        ENDPOINTS[endpoint](_deltas(bench.customer, numbers), token) for _ in range(BATCHES)
    ]
    run = await load(bench.system.port, bench.gateway, iter(requests), AT_ONCE, LONGEST)
    if run.failures or run.answers != BATCHES:
        raise RuntimeError(f"{endpoint}: {run.failures} of {run.answers} answers were not good")
    return run


def _deltas(customer: str, numbers: "count[int]") -> Deltas:
    now = datetime.now(UTC).isoformat()
    skus = tuple(CENTS)
    return [
        {
            "id": f"metering-{next(numbers)}",
            "customerId": customer,
            "sku": skus[n % len(skus)],
            "quantity": "0.125",
            "occurredAt": now,
            "app": f"app-{n % 30}",
            "region": ("fra", "lhr", "iad")[n % 3],
        }
        for n in range(BATCH)
    ]


async def _all_counted(bench: Bench, sent: int) -> None:
    """Or the endpoints were quick to refuse."""
    month = Period.containing(datetime.now(UTC))
    found = await bench.services.ledger.periods.snapshot(CustomerId(bench.customer), month)
    counted = sum(found.totals[LineKey(sku)] for sku in CENTS) * 8
    if counted != sent:
        raise RuntimeError(f"{counted} of {sent} deltas were counted")


if __name__ == "__main__":
    uvloop.run(main())
