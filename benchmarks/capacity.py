"""Staleness of drafts by Stripe allowance: ``python -m benchmarks.capacity``, or ``make capacity``.

A simulated day at the operator's settings (``simulated_day``), for each of ``SIZES``, ``ALLOWANCES`` and a few
settings, and the end of a month (``month_end``). Writes ``docs/capacity.svg``.
"""

from dataclasses import replace
from pathlib import Path

from benchmarks import month_end
from benchmarks.simulated_day import HOUR, TICK, Figures, simulate
from benchmarks.svg import plot
from billing.budget.policy import RateLimit
from billing.invoicing.flush_schedule import FlushSchedule
from billing.ledger import LedgerPolicy
from billing.settings import Settings

PLOT = Path(__file__).parents[1] / "docs" / "capacity.svg"
SIZES = {"10,000 customers": 10_000, "100,000": 100_000, "1,000,000": 1_000_000}
ALLOWANCES = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0)


def main() -> None:
    """Print both tables and draw the plot."""
    base, first = _schedule(), _first_look()
    granted = RateLimit.from_share(_default("stripe_endpoint_rate"), _default("stripe_share")).rate
    curves: dict[str, list[tuple[float, float]]] = {}
    print("\nAge of usage when Stripe is told, by customers and writes/s that Stripe grants")
    print("(p50 / p99; * more work than the allowance: the line sets the age, not the schedule)\n")
    print("  writes/s " + "".join(f"{name:>18}" for name in SIZES))
    for rate in ALLOWANCES:
        figures = {name: simulate(size, rate, base, first) for name, size in SIZES.items()}
        for name, figure in figures.items():
            curves.setdefault(name, []).append((rate, figure.p99))
        mark = "  <- the default" if rate == granted else ""
        print(
            f"  {rate:>8.0f} "
            + "".join(f"{_cell(figure, base):>18}" for figure in figures.values())
            + mark
        )
    _compare_settings(base, first, granted)
    month_end.report()
    _draw(curves, granted)
    print(f"\nThe first table as a plot: {PLOT.relative_to(Path.cwd())}")


def _draw(curves: dict[str, list[tuple[float, float]]], granted: float) -> None:
    hours = {
        6.0: "6 h",
        12.0: "12 h",
        24.0: "1 day",
        72.0: "3 days",
        168.0: "1 week",
        336.0: "2 weeks",
        720.0: "1 month",
    }
    PLOT.write_text(
        plot(
            "Age of usage when it reaches Stripe (p99)",
            (
                "writes per second to one endpoint",
                {rate: f"{rate:.0f}" for rate in ALLOWANCES},
            ),
            ("for customers without a requested sync", hours),
            curves,
            (granted, "the default: 0.8 of Stripe's 25"),
        ),
    )


def _compare_settings(base: FlushSchedule, first: LedgerPolicy, granted: float) -> None:
    print(f"\n100,000 customers at {granted:.0f} writes/s: what the settings trade\n")
    print(
        "  flush_interval  flush_stake   writes a customer and day   age p50 / p99     unreported p99"
    )
    for hours in (1, 3, 6, 12, 24):
        for dollars in (5, 20, 100):
            schedule = replace(base, max_age_ms=hours * HOUR, amount_threshold=dollars * 100)
            found = simulate(100_000, granted, schedule, first)
            print(
                f"  {hours:>11} h  {dollars:>10} $   {found.calls_a_day:>25.1f}   "
                f"{_cell(found, schedule):>16}  {found.money_p99 / 100:>14.0f} $",
            )


def _default(name: str) -> float:
    return float(Settings.model_fields[name].default)


def _schedule() -> FlushSchedule:
    return FlushSchedule(
        max_age_ms=round(_default("flush_interval") * 1000),
        amount_threshold=round(_default("flush_stake")),
        min_delay_ms=round(_default("flush_pause") * 1000),
        jitter=_default("flush_jitter"),
    )


def _first_look() -> LedgerPolicy:
    return LedgerPolicy(round(_default("flush_pause") * 1000), _default("flush_jitter"))


def _cell(found: Figures, schedule: FlushSchedule) -> str:
    late = "*" if found.p99 * HOUR > schedule.max_age_ms + TICK else " "
    return f"{found.p50:.1f} / {found.p99:.1f} h{late}"


if __name__ == "__main__":
    main()
