"""A flood of Stripe's events through the real processes: ``python -m benchmarks webhooks``.

First the endpoint alone, beside a bare route. Then ``FLOOD_EVENTS`` (100,000) events about a few hundred
customers through two gateways and two workers on one durable Valkey: 20 % sent twice, 10 % out of order, and
beside them 1 % forgeries and 0.1 % garbage, while objects change at Stripe and panels are read all the time,
from a third gateway: docs/running.md tells why Stripe's deliveries are given processes of their own.
They come in batches of ``FLOOD_BATCH``; before each, panels are read beside as many deliveries as a busy Stripe
sends, because a machine is not always equally quick; after each, everything is counted: forgeries stored, events
lost. After the last one every panel is compared with Stripe.
"""

import asyncio
import gc
import os
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import Any

import httpx

from benchmarks.flood.panels import Panels, Times
from benchmarks.flood.sender import FORGED, NAME, Stage
from benchmarks.flood.stripe_account import People
from benchmarks.flood.system import CUSTOMERS, Flood, opened
from benchmarks.flood.webhook_endpoint import measure_endpoint_alone
from billing.events.records import EventStatus
from tests.support.wait import wait_until

EVENTS = int(os.environ.get("FLOOD_EVENTS", "100000"))
BATCH = int(os.environ.get("FLOOD_BATCH", "50000"))
CONNECTIONS = 64
NORMAL_RATE = 300  # deliveries/s; Stripe lets us make 100 writes a second, of few events each
NORMAL_SECONDS = 10.0
OTHER_RATES, OTHER_SECONDS = (0, 1_000), 60.0
ATTEMPTS = 1.2  # deliveries of an event
PACED = count(200_000_000, 1_000_000)  # numbers of events beyond what the flood counts to


async def main() -> None:
    """Run the endpoint alone, then the flood, and say what was seen."""
    gc.disable()  # a pause of who measures would be taken for one of the gateway's
    async with opened() as flood:
        await measure_endpoint_alone(flood)
        await _flood(flood)


async def _flood(flood: Flood) -> None:
    one, other = flood.systems
    await flood.start_rest()
    await _workers_are_through(flood)
    token = {"Authorization": f"Bearer {one.token('support')}"}
    limits = httpx.Limits(max_connections=50, keepalive_expiry=2)  # uvicorn keeps them for five
    async with httpx.AsyncClient(headers=token, timeout=30, limits=limits) as http:
        urls = [one.url, other.url]
        people = People(flood.services, flood.sandbox, flood.bodies, urls, http)
        panels = Panels(people, flood.front.url, http)
        async with _meanwhile(people.keep_changing()):
            for rate in OTHER_RATES:
                taken = await _paced(flood, panels, rate, OTHER_SECONDS)
                print(f"  panels at {rate:5,} deliveries/s  {taken}", flush=True)
            normal, flooded = Times(), Times()
            for first in range(0, EVENTS, BATCH):
                normal += await _paced(flood, panels, NORMAL_RATE, NORMAL_SECONDS)
                flooded += await _batch(flood, panels, first, min(BATCH, EVENTS - first))
            print(f"  panels at {NORMAL_RATE:5,} between all this {normal}")
            print(f"  panels while all this lasted   {flooded}")
        await people.change_everybody()
        # The last event is acknowledged: from here on, before any worker has moved, panels have to be right.
        differing = await panels.differing(flood.services)
    await _workers_are_through(flood)
    failed = (await flood.services.inbox.page(1, status=EventStatus.FAILED)).items
    print(
        f"  {people.changes} changes at Stripe; panels that differ from Stripe {differing} of {CUSTOMERS}; "
        f"events that failed {len(failed)}"
    )
    assert not differing
    assert not failed


async def _paced(flood: Flood, panels: Panels, rate: int, seconds: float) -> Times:
    """Measure panels beside a number of evenly spaced deliveries a second."""
    taken, events = Times(), round(seconds * rate / ATTEMPTS)
    async with _meanwhile(panels.keep_reading(taken)):
        if events:
            await flood.send(Stage(next(PACED), events, CONNECTIONS, rate), *flood.gateways)
        else:
            await asyncio.sleep(seconds)
    return taken


async def _batch(flood: Flood, panels: Panels, first: int, events: int) -> Times:
    """So many events as fast as they are answered; then what became of each. How long panels took."""
    before, numbers, taken = await flood.spent(), range(first, first + events), Times()
    async with _meanwhile(panels.keep_reading(taken)):
        sent = await flood.send(Stage(first, events, CONNECTIONS), *flood.gateways)
    waited = await _workers_are_through(flood)
    spent = {
        part: (seconds - before[part]) / sent.run.answers * 1e6
        for part, seconds in (await flood.spent()).items()
    }
    stored, forged = [await flood.count_stored(name, numbers) for name in (NAME, FORGED)]
    costs = ", ".join(f"{part} {micros:.0f}" for part, micros in spent.items())
    print(
        f"  {sent.run.answers:,} deliveries of {events:,} events in {sent.run.seconds:.0f} s, "
        f"{sent.run.rate:,.0f}/s; panels {taken}; workers through after {waited:.1f} s\n"
        f"    forgeries stored {forged} of {sent.forged}, garbage taken {sent.bad - sent.run.failures} of "
        f"{sent.garbage}, events lost {events - stored}\n"
        f"    µs of CPU a delivery: {costs}; {await flood.sizes()}",
        flush=True,
    )
    assert (forged, sent.run.failures, stored) == (0, sent.bad, events)
    return taken


async def _workers_are_through(flood: Flood) -> float:
    began = time.perf_counter()

    async def through() -> bool:
        return not (await flood.services.inbox.page(1, status=EventStatus.PENDING)).items

    await wait_until(through, "the workers are through", seconds=300)
    return time.perf_counter() - began


@asynccontextmanager
async def _meanwhile(doing: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(doing)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


if __name__ == "__main__":
    asyncio.run(main())
