"""The chaos run, shortened for the suite: processes are killed, Stripe fails, usage comes in."""

import os
from pathlib import Path

import pytest

from tests.chaos.faults import VICTIMS
from tests.chaos.run import chaos

SECONDS = float(os.environ.get("CHAOS_SECONDS", "3"))
SEED = int(os.environ.get("CHAOS_SEED", "20261122"))


@pytest.mark.timeout(300)
async def test_bills_are_exact_after_random_kills(tmp_path: Path) -> None:
    """Each acknowledged delta is billed once, nothing is stuck; ``CHAOS_SECONDS=60`` for the whole minute."""
    report = await chaos(tmp_path, seconds=SECONDS, seed=SEED)

    assert report.mistakes == [], report.text()
    assert report.load["deltas acknowledged"] > 0
    assert {name for name in VICTIMS if report.deaths[f"times {name} was killed"]} == {*VICTIMS}
