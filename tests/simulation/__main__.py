# ruff: noqa: T201 - it speaks to a person on a terminal
"""``python -m tests.simulation --schedules 10000 --seed 1``: progress, figures, failing seeds."""

import argparse
import asyncio
import logging
import sys
import time

import structlog

from tests.simulation.run import Figures, Simulation, fresh_seed, open_simulation

PROGRESS_SECONDS = 10


async def main() -> int:
    """Return the number of failed schedules."""
    options = _options()
    first = fresh_seed() if options.seed is None else options.seed
    print(f"seed {first}, {options.schedules} schedules")
    figures, began = Figures(), time.monotonic()
    try:
        async with open_simulation() as simulation:
            await _run(simulation, range(first, first + options.schedules), figures)
    finally:
        print(f"{figures.schedules} schedules in {time.monotonic() - began:.0f} s")
        for name, count in sorted(figures.counts.items()):
            print(f"  {count:>9,} {name}")
        for seed in figures.failures:
            print(f"again: python -m tests.simulation --schedules 1 --seed {seed}")
    return len(figures.failures)


async def _run(simulation: Simulation, seeds: range, figures: Figures) -> None:
    shown = time.monotonic()
    for seed in seeds:
        await simulation.schedule(seed, figures)
        if seed in figures.failures:
            print(f"FAILED seed {seed}: {figures.failures[seed]}", flush=True)
        if time.monotonic() - shown > PROGRESS_SECONDS:
            shown = time.monotonic()
            print(f"{figures.schedules} schedules, {len(figures.failures)} failed", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=None, help="first seed; chosen if not given")
    return parser.parse_args()


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    sys.exit(1 if asyncio.run(main()) else 0)
