"""The demo's processes: started one after another, stopped in reverse order."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from demo.home import DemoError

STOP_SECONDS = 60  # longer than a worker may need to finish the call it is in


class Processes:
    """A context that stops every process it started at its end."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []
        logs.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name, process in reversed(self._running):
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                print(f"{name} did not stop within {STOP_SECONDS} s; ending it.")
                process.kill()
                process.wait()

    def start(self, name: str, *command: str) -> None:
        """Start ``python -m COMMAND…``; its output goes to ``<logs>/<name>.log``."""
        log = (self._logs / f"{name}.log").open("ab")
        with log:
            process = subprocess.Popen(  # noqa: S603 our own modules
                [sys.executable, "-m", "demo.child_process", sys.executable, "-m", *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches only the demo itself, which stops all in order
            )
        self._running.append((name, process))

    def wait_until(self, ready: Callable[[], bool], what: str, seconds: float = 60) -> None:
        """Poll *ready*; DemoError when a process ends meanwhile or after *seconds*."""
        deadline = time.monotonic() + seconds
        while not ready():
            self.check_alive()
            if time.monotonic() > deadline:
                raise DemoError(f"{what} did not come up within {seconds:.0f} s; see {self._logs}.")
            time.sleep(0.05)

    def check_alive(self) -> None:
        """Raise DemoError if a process has ended."""
        for name, process in self._running:
            if process.poll() is not None:
                log = self._logs / f"{name}.log"
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
                raise DemoError(f"{name} ended with code {process.returncode}; {log} ends:\n{tail}")
