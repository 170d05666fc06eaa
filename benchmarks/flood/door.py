"""The door alone: one gateway process beside a bare route that reads the body and answers 204, in turns.

Either has a core to itself; who sends and the Redis servers share the other one.
"""

import os
import statistics
from functools import partial

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.flood.sending import PATH, Stage, Target
from benchmarks.flood.system import Flood
from benchmarks.http_load import Run, listens
from tests.support.system import System, until

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


async def door_alone(flood: Flood) -> None:
    """Print medians and ranges, and the share of the floor at the best number of connections."""
    system = flood.systems[0]
    await system.start_gateway()
    door = Target(system.port, system.running[0].pid)
    floor = await _start_bare(flood)
    for process in (door.process, floor.process):
        os.sched_setaffinity(process, {0})
    for process in await flood.others():
        os.sched_setaffinity(process, {1})
    runs: dict[tuple[Target, int], list[Run]] = {}
    first = FIRST
    for _ in range(ROUNDS):
        for connections in CONNECTIONS:
            for target in (floor, door):
                sent = await flood.send(Stage(first, ROUND_EVENTS, connections), target)
                runs.setdefault((target, connections), []).append(sent.run)
                first += ROUND_EVENTS
    for process in (door.process, *await flood.others()):
        os.sched_setaffinity(process, range(os.cpu_count() or 1))
    for connections in CONNECTIONS:
        bare_runs, door_runs = runs[floor, connections], runs[door, connections]
        print(f"{connections} connections: a bare route {_told(bare_runs)}")
        print(f"{connections} connections: the door     {_told(door_runs)}")
    best = {
        target: max(statistics.median(each.rate for each in runs[target, n]) for n in CONNECTIONS)
        for target in (floor, door)
    }
    least = {
        target: min(statistics.median(each.micros for each in runs[target, n]) for n in CONNECTIONS)
        for target in (floor, door)
    }
    print(
        f"  the door at its best is {best[door] / best[floor]:.2f} of the floor by deliveries a second, "
        f"{least[floor] / least[door]:.2f} by CPU a delivery (aim {AIM})"
    )


async def _start_bare(flood: Flood) -> Target:
    system = System(flood.services.settings, flood.systems[0].logs)
    process = system.start(
        *("uvicorn", "--factory", "benchmarks.flood.door:bare", "--no-access-log"),
        *("--port", str(system.port)),
    )
    flood.systems[0].running.append(process)
    await until(partial(listens, system.port), "the bare route listens")
    return Target(system.port, process.pid)


def _told(runs: list[Run]) -> str:
    rates, micros = sorted(each.rate for each in runs), sorted(each.micros for each in runs)
    return (
        f"{statistics.median(rates):7,.0f}/s ({rates[0]:,.0f} to {rates[-1]:,.0f}), "
        f"{statistics.median(micros):4.0f} µs of CPU ({micros[0]:.0f} to {micros[-1]:.0f})"
    )
