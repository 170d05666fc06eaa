"""The house keeps its shape: names that are ours alone, files that nobody outside would miss."""

import subprocess
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOMS = ("billing", "schema", "resolvers", "workers", "webhooks", "gateway", "sandbox", "demo")


@pytest.mark.parametrize("room", ROOMS)
def test_no_other_distribution_claims_our_names(room: str) -> None:
    """There is a distribution called schema; installing it would shadow ours."""
    assert set(packages_distributions().get(room, ["fly-billing-gateway"])) == {
        "fly-billing-gateway"
    }


def test_no_lock_file_names_an_index() -> None:
    """A lock file with download addresses works only where those addresses do."""
    tracked = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout
    locks = [Path(name) for name in tracked.split() if "requirements" in name or "lock" in name]
    assert locks
    named = [
        lock for lock in locks if "resolved" in lock.read_text() or "index-url" in lock.read_text()
    ]
    assert named == []
