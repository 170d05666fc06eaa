"""``make bench``: every benchmark in turn, or the one that is named; each prints its own floor."""

import runpy
import sys
from pathlib import Path

NOT_BENCHMARKS = {
    "__main__",
    "capacity",
    "http_load",
    "month_end",
    "simulated_day",
    "svg",
    "virtual_time",
}


def main(only: str | None) -> None:
    """Run the benchmark called *only*, or all of them."""
    names = sorted(file.stem for file in Path(__file__).parent.glob("*.py"))
    chosen = [name for name in names if name not in NOT_BENCHMARKS and only in (None, name)]
    if not chosen:
        raise SystemExit(
            f"There is no benchmark {only!r}; there are: {', '.join(set(names) - NOT_BENCHMARKS)}"
        )
    for name in chosen:
        print(f"\n== {name}", flush=True)
        runpy.run_module(f"benchmarks.{name}", run_name="__main__")


main(sys.argv[1] if len(sys.argv) > 1 else None)
