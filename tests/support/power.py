"""A power cut: what a killed server had written and not yet synced is gone.

``power.c``, loaded into the server, notes how much of each file was on disk at the end of each sync. It needs
a C compiler; without one a kill is all that can be done to a server.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

COMPILER = shutil.which("cc")
SOURCE = Path(__file__).with_name("power.c")
NOTE = ".synced"


def watched(folder: Path) -> Mapping[str, str]:
    """The environment of a process whose syncs are noted; the part that does it is built in *folder*."""
    if COMPILER is None:
        return {}
    library = folder / "power.so"
    command = [COMPILER, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return {"LD_PRELOAD": str(library)}


def cut(folder: Path) -> int:
    """Take from every append-only file below *folder* what was not synced, its server being dead; how many bytes."""
    lost = 0
    for file in folder.rglob("*.incr.aof"):
        note = file.with_name(file.name + NOTE)
        synced, size = int(note.read_text() or 0) if note.exists() else 0, file.stat().st_size
        if synced < size:
            lost += size - synced
            os.truncate(file, synced)
    return lost
