"""Run a command that ends with its owner: ``python -m demo.child_process COMMAND…``.

The owner holds the other end of this process's standard input. When the owner dies, however
suddenly, the pipe closes and the command is asked to stop; a SIGTERM to the leash does the same.
"""

import os
import signal
import subprocess
import sys
import threading

GRACE_SECONDS = 30


def main(command: list[str]) -> int:
    """Run *command* until it ends or the owner is gone; its exit code."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 the demo's own commands
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    threading.Thread(target=_until_owner_dies, args=(child,), daemon=True).start()
    return child.wait()


def _until_owner_dies(child: "subprocess.Popen[bytes]") -> None:
    # Unbuffered: a buffered reader that still waits when the process ends makes Python abort.
    while os.read(sys.stdin.fileno(), 1):
        pass
    child.terminate()
    try:
        child.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()  # a worker whose ledger died with its owner would wait for it; nobody waits for the worker


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
