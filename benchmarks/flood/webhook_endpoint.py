"""The endpoint alone: one gateway process beside a bare route that reads the body and answers 204, in turns.

Either has a core to itself; who sends and the Redis servers share the other one.
"""

import os
import statistics
from functools import partial

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.flood.sender import PATH, Stage, Target
from benchmarks.flood.system import Flood
from benchmarks.http_load import Run, listens
from tests.support.system import System
from tests.support.wait import wait_until

ROUNDS = 5
ROUND_EVENTS = int(os.environ.get("FLOOD_ROUND", "10000"))
CONNECTIONS = (24, 64)
AIM = 0.3
FIRST = 100_000_000  # beyond what the flood counts to


def bare() -> Starlette:
    """The floor: a route that does nothing with what it reads."""

    async def answer(request: Request) -> Response:
        await request.body()
        return Response(status_code=204)

    return Starlette(routes=[Route(PATH, answer, methods=["POST"])])


async def measure_endpoint_alone(flood: Flood) -> None:
    """Print medians and ranges, and the share of the floor at the best number of connections."""
    system = flood.systems[0]
    await system.start_gateway()
    endpoint = Target(system.port, system.running[0].pid)
    floor = await _start_bare(flood)
    for process in (endpoint.process, floor.process):
        os.sched_setaffinity(process, {0})
    for process in await flood.others():
        os.sched_setaffinity(process, {1})
    runs: dict[tuple[Target, int], list[Run]] = {}
    first = FIRST
    for _ in range(ROUNDS):
        for connections in CONNECTIONS:
            for target in (floor, endpoint):
                sent = await flood.send(Stage(first, ROUND_EVENTS, connections), target)
                runs.setdefault((target, connections), []).append(sent.run)
                first += ROUND_EVENTS
    for process in (endpoint.process, *await flood.others()):
        os.sched_setaffinity(process, range(os.cpu_count() or 1))
    for connections in CONNECTIONS:
        bare_runs, endpoint_runs = runs[floor, connections], runs[endpoint, connections]
        print(f"{connections} connections: a bare route {_summary(bare_runs)}")
        print(f"{connections} connections: the endpoint   {_summary(endpoint_runs)}")
    best = {
        target: max(statistics.median(run.rate for run in runs[target, n]) for n in CONNECTIONS)
        for target in (floor, endpoint)
    }
    least = {
        target: min(statistics.median(run.micros for run in runs[target, n]) for n in CONNECTIONS)
        for target in (floor, endpoint)
    }
    print(
        f"  the endpoint at its best is {best[endpoint] / best[floor]:.2f} of the floor by deliveries a second, "
        f"{least[floor] / least[endpoint]:.2f} by CPU a delivery (aim {AIM})"
    )


async def _start_bare(flood: Flood) -> Target:
    system = System(flood.services.settings, flood.systems[0].logs)
    process = system.start(
        *("uvicorn", "--factory", "benchmarks.flood.webhook_endpoint:bare", "--no-access-log"),
        *("--port", str(system.port)),
    )
    flood.systems[0].running.append(process)
    await wait_until(partial(listens, system.port), "the bare route listens")
    return Target(system.port, process.pid)


def _summary(runs: list[Run]) -> str:
    rates, micros = sorted(run.rate for run in runs), sorted(run.micros for run in runs)
    return (
        f"{statistics.median(rates):7,.0f}/s ({rates[0]:,.0f} to {rates[-1]:,.0f}), "
        f"{statistics.median(micros):4.0f} µs of CPU ({micros[0]:.0f} to {micros[-1]:.0f})"
    )
