"""``python -m schema`` writes ``schema/schema.graphql``; with ``--check`` it only says whether that is current."""

import sys
from pathlib import Path

from schema.root import build_schema

PRINT = Path(__file__).with_name("schema.graphql")


def main(arguments: list[str]) -> int:
    """0 when the print is current or was written, 1 when ``--check`` finds it out of date."""
    sdl = build_schema().as_str() + "\n"
    if "--check" not in arguments:
        PRINT.write_text(sdl)
        return 0
    if PRINT.read_text() == sdl:
        return 0
    sys.stderr.write("schema/schema.graphql is out of date: run `python -m schema`.\n")
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
