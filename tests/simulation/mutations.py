# ruff: noqa: T201 - it speaks to a person on a terminal
"""Every protection, switched off one at a time: the oracle must notice, or it proves nothing.

``python -m tests.simulation.mutations`` prints after how many schedules each was noticed.
"""

import argparse
import asyncio
import logging
import sys

import structlog

from tests.simulation.mutation import Mutation
from tests.simulation.protections import PROTECTIONS
from tests.simulation.run import KINDS, Figures, Simulation, open_simulation
from tests.simulation.year.protections import YEAR_PROTECTIONS

BROKEN = ("AttributeError", "NameError", "TypeError")
MUTATIONS = (*PROTECTIONS, *YEAR_PROTECTIONS)


async def schedules_until_noticed(
    simulation: Simulation, mutation: Mutation, limit: int
) -> tuple[int, str] | None:
    """Return how many schedules it took to notice that the protection is off, and the failure; None if not noticed."""
    kinds = [kind for kind in KINDS if str(kind) in mutation.kinds]
    tried = 0
    with mutation.off():
        for seed in range(limit):
            figures, kind = Figures(), kinds[seed % len(kinds)]
            await simulation.schedule(seed, figures, kind)
            tried += 1
            if figures.failures:
                seen = figures.failures[seed]
                if any(f" {error}: " in seen for error in BROKEN):
                    raise RuntimeError(f"{mutation.name!r} is broken itself: {seen}")
                return tried, seen
    return None


async def main() -> int:
    """Return the number of protections whose absence was not noticed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=400)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    missed = 0
    async with open_simulation() as simulation:
        for mutation in MUTATIONS:
            if options.only not in mutation.name:
                continue
            found = await schedules_until_noticed(simulation, mutation, options.limit)
            missed += found is None
            print(
                f"{'MISSED' if found is None else found[0]:>6}  {mutation.name}: {(found or (0, ''))[1][:110]}",
                flush=True,
            )
    return missed


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    sys.exit(1 if asyncio.run(main()) else 0)
