# ruff: noqa: T201 - it speaks to a person on a terminal
"""``python -m tests.chaos --seconds 60 --seed 1``: kills, faults, deltas, and whether every bill is exact."""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.chaos.run import chaos


async def main() -> int:
    """Run the chaos; return the number of mistakes."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--logs", type=Path, help="keep the processes' logs and data here")
    parser.add_argument("--checkout", type=Path, help="another version, to mix with this one")
    parser.add_argument(
        "--from-checkout",
        nargs="+",
        default=["worker 1", "worker 2"],
        metavar="PART",
        help="the parts that run that version: gateway, 'worker 1', 'worker 2'",
    )
    options = parser.parse_args()
    others = {part: options.checkout for part in options.from_checkout if options.checkout}
    with tempfile.TemporaryDirectory() as fresh:
        folder = options.logs or Path(fresh)
        folder.mkdir(parents=True, exist_ok=True)
        print(f"seed {options.seed}, {options.seconds:.0f} s of trouble", flush=True)
        report = await chaos(folder, seconds=options.seconds, seed=options.seed, checkouts=others)
    print(report.text())
    return len(report.mistakes)


if __name__ == "__main__":
    sys.exit(1 if asyncio.run(main()) else 0)
