"""``python -m schema`` writes what is printed from the code: the schema, and the panel's trusted documents.

With ``--check`` it only says whether both are current.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from schema import trusted_documents
from schema.build import build_schema

PRINT = Path(__file__).with_name("schema.graphql")
PRINTS: Mapping[Path, Callable[[], str]] = {
    PRINT: lambda: build_schema().as_str() + "\n",
    trusted_documents.PANEL / "documents.json": trusted_documents.printed,
}


def main(arguments: list[str], prints: Mapping[Path, Callable[[], str]] = PRINTS) -> int:
    """0 when the *prints* are current or were written, 1 when ``--check`` finds one out of date."""
    stale = {path: text for path, made in prints.items() if path.read_text() != (text := made())}
    if "--check" not in arguments:
        for path, text in stale.items():
            path.write_text(text)
        return 0
    for path in stale:
        sys.stderr.write(f"{path.name} is out of date: run `python -m schema`.\n")
    return int(bool(stale))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
