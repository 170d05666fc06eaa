"""Processes that begin where their imports end: forked from a server that has done them once.

A gateway or a worker spends most of its start on imports, and the suite starts dozens. What follows
is as in a process of its own: environment, arguments, output, signals, death. ``tests/demo`` starts
everything from nothing, as ``make up`` does.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.executors import use_chosen_executor

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["arq.cli", "uvicorn.main", "gateway.app", "workers.main"])


class Forked:
    """As much of a `subprocess.Popen` of ``python -m COMMAND`` as the tests use."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], log: Path) -> None:
        self.args = list(command)
        self._process = _context.Process(
            target=_run, args=(self.args, dict(env), log), name=command[0], daemon=True
        )
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status: negative for a signal, None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """As `returncode`."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; subprocess.TimeoutExpired after *timeout* seconds."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it as a crash does."""
        self.send_signal(signal.SIGKILL)


def _run(command: list[str], env: dict[str, str], log: Path) -> None:
    os.environ.clear()
    os.environ.update(env)
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    use_chosen_executor()
    sys.argv[1:] = command[1:]
    runpy.run_module(command[0], run_name="__main__", alter_sys=True)
