"""The shape of the repository: package names that are ours alone, lock files without hosts, true documents."""

import re
import subprocess
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("billing", "schema", "resolvers", "workers", "webhooks", "gateway", "sandbox", "demo")
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
MENTION = re.compile(r"`([a-z_]+(?:/[A-Za-z0-9_.-]+)+/?)(?:: ([^`]+))?`")


@pytest.mark.parametrize("package", PACKAGES)
def test_no_other_distribution_claims_our_names(package: str) -> None:
    """There is a distribution called schema; installing it would shadow ours."""
    assert set(packages_distributions().get(package, ["fly-billing-gateway"])) == {
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


def test_files_and_symbols_that_the_docs_mention_exist() -> None:
    """A document that names a file or a function which has moved misleads its reader."""
    wrong = []
    for document in DOCUMENTS:
        for path, symbols in MENTION.findall(document.read_text(encoding="utf-8")):
            named = ROOT / path
            if not named.exists() and not is_generated(path):
                wrong.append(f"{document.name}: {path}")
            elif named.is_file():
                source = named.read_text(encoding="utf-8")
                missing = [symbol for symbol in words_in(symbols) if symbol not in source]
                wrong += [f"{document.name}: {path}: {symbol}" for symbol in missing]

    assert wrong == []


def is_generated(path: str) -> bool:
    """A path that exists only after set-up, or is no path of the tree (a media type)."""
    return path.split("/", maxsplit=1)[0] not in {entry.name for entry in ROOT.iterdir()}


def words_in(symbols: str) -> list[str]:
    """The names in "Class.method, CONSTANT"."""
    return [part for part in re.split(r"[,.\s]+", symbols) if part]
