"""Command ``python -m schema``: writes the printed schema and the panel's trusted documents.

With ``--check`` it only verifies that both are current.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from schema import trusted_documents
from schema.build import build_schema

SCHEMA_FILE = Path(__file__).with_name("schema.graphql")
GENERATED_FILES: Mapping[Path, Callable[[], str]] = {
    SCHEMA_FILE: lambda: build_schema().as_str() + "\n",
    trusted_documents.PANEL / "documents.json": trusted_documents.render,
}


def main(
    arguments: list[str], generated: Mapping[Path, Callable[[], str]] = GENERATED_FILES
) -> int:
    """Write the *generated* files. Returns 0, or 1 when ``--check`` finds one out of date."""
    stale = {path: text for path, made in generated.items() if path.read_text() != (text := made())}
    if "--check" not in arguments:
        for path, text in stale.items():
            path.write_text(text)
        return 0
    for path in stale:
        sys.stderr.write(f"{path.name} is out of date: run `python -m schema`.\n")
    return int(bool(stale))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
