"""Run a command that ends with its owner: ``python -m demo.child_process COMMAND…``.

The owner holds the other end of this process's standard input. When the owner dies, even by SIGKILL,
the pipe closes and the command is terminated; a SIGTERM to this process does the same.
"""

import os
import signal
import subprocess
import sys
import threading

GRACE_SECONDS = 30


def main(command: list[str]) -> int:
    """Run *command* until it ends or its owner has died; return its exit code."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 the demo's own commands
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    threading.Thread(target=_stop_with_owner, args=(child,), daemon=True).start()
    return child.wait()


def _stop_with_owner(child: "subprocess.Popen[bytes]") -> None:
    # Unbuffered: a buffered reader that still waits when the process ends makes Python abort.
    while os.read(sys.stdin.fileno(), 1):
        pass
    child.terminate()
    try:
        child.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()  # a worker whose ledger died with the owner would wait for the ledger


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
