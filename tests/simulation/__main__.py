# ruff: noqa: T201 - it speaks to a person on a terminal
"""``python -m tests.simulation --schedules 10000 --seed 1``: progress, figures, failing seeds."""

import argparse
import asyncio
import logging
import sys
import time

import structlog

from tests.simulation.run import KINDS, Figures, Simulation, fresh_seed, open_simulation

PROGRESS_SECONDS = 10


async def main() -> int:
    """Return the number of failed schedules."""
    options = _options()
    first = fresh_seed() if options.seed is None else options.seed
    print(f"seed {first}, {options.schedules} schedules")
    figures, began = Figures(), time.monotonic()
    try:
        async with open_simulation() as simulation:
            seeds = range(first, first + options.schedules)
            await _run(simulation, seeds, figures, options.kind)
    finally:
        print(f"{figures.schedules} schedules in {time.monotonic() - began:.0f} s")
        for name, count in sorted(figures.counts.items()):
            print(f"  {count:>9,} {name}")
        for kind, count in figures.by_kind.items():
            print(f"  {count:>9,} {kind}: {figures.seconds[kind] / count:.2f} s each")
        for seed, trace in figures.traces.items():
            print(f"steps of seed {seed}, the last ones:", *trace, sep="\n  ")
        chosen = f" --kind {options.kind!r}" if options.kind else ""
        for seed in figures.failures:
            print(f"again: python -m tests.simulation --schedules 1 --seed {seed}{chosen}")
    return len(figures.failures)


async def _run(simulation: Simulation, seeds: range, figures: Figures, only: str | None) -> None:
    shown, kinds = time.monotonic(), {str(kind): kind for kind in KINDS}
    for seed in seeds:
        await simulation.schedule(seed, figures, kinds[only] if only else None)
        if seed in figures.failures:
            print(f"FAILED seed {seed}: {figures.failures[seed]}", flush=True)
        if time.monotonic() - shown > PROGRESS_SECONDS:
            shown = time.monotonic()
            print(f"{figures.schedules} schedules, {len(figures.failures)} failed", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=None, help="first seed; chosen if not given")
    parser.add_argument(
        "--kind", choices=list(map(str, KINDS)), help="of trouble; all if not given"
    )
    return parser.parse_args()


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    sys.exit(1 if asyncio.run(main()) else 0)
