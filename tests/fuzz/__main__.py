# ruff: noqa: T201 - it speaks to a person on a terminal
"""``python -m tests.fuzz --schemas 300 --seed 1``: compares the plan executor with graphql-core's own."""

import argparse
import asyncio
import sys
import time

from tests.fuzz.comparison import Figures, compare_schema

MAX_SHOWN = 5


async def main() -> int:
    """Return the number of differences."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--schemas", type=int, default=300)
    parser.add_argument("--documents", type=int, default=16, help="valid ones for each schema")
    parser.add_argument("--seed", type=int, default=1, help="number of the first schema")
    options = parser.parse_args()
    sys.unraisablehook = lambda _: None  # a null drops the coroutines of its siblings
    figures, began = Figures(), time.monotonic()
    for seed in range(options.seed, options.seed + options.schemas):
        await compare_schema(seed, options.documents, figures)
    print(f"{time.monotonic() - began:.0f} s")
    for name, count in sorted(figures.counts.items()):
        print(f"  {count:>9,} {name}")
    print(f"  {len(figures.differences):>9,} differences")
    print(*figures.differences[:MAX_SHOWN], sep="\n\n")
    return len(figures.differences)


if __name__ == "__main__":
    sys.exit(bool(asyncio.run(main())))
