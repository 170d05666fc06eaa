"""`make up` on a new machine: it serves a bill, finds its data again, and leaves no process behind."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.support.system import free_port

READY = "Ctrl-C stops everything."


@contextmanager
def running_demo(home: Path, port: int) -> Iterator["Demo"]:
    """Run ``python -m demo up`` on *home* until it says that it is ready."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("BILLING_")
    }
    environment |= {"BILLING_DATA_DIR": str(home), "BILLING_PORT": str(port)}
    log_path = home.with_suffix(f".{time.monotonic_ns()}.log")
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "demo", "up"],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    up = Demo(process, log_path, home)
    try:
        up.wait_until_ready()
        yield up
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


class Demo:
    """A running demo and its output."""

    def __init__(self, process: "subprocess.Popen[bytes]", log_path: Path, home: Path) -> None:
        self.process = process
        self._log = log_path
        self._home = home

    @property
    def output(self) -> str:
        """The demo's output so far."""
        return self._log.read_text()

    def wait_until_ready(self, seconds: float = 150) -> None:
        """Poll the output until the demo says that it is ready."""
        deadline = time.monotonic() + seconds
        while READY not in self.output:
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.1)

    def paste(self) -> dict[str, object]:
        """Run the commands that the output says to paste, in a shell, and return the response."""
        lines = [line for line in self.output.splitlines() if re.match(r"\s+(export|curl) ", line)]
        answer = subprocess.run(
            ["bash", "-c", "\n".join(lines)], capture_output=True, text=True, check=True
        ).stdout
        found: dict[str, object] = httpx.Response(200, text=answer).json()
        return found

    def left_behind(self) -> list[str]:
        """Return the command lines of processes that still use this demo's data."""
        found = []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            try:
                mine = f"BILLING_DATA_DIR={self._home}".encode() in environ.read_bytes()
            except OSError:
                continue
            if mine and environ.parent.name != str(self.process.pid):
                found.append((environ.parent / "cmdline").read_text().replace("\0", " "))
        return found


@pytest.mark.timeout(420)
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for left-over processes in /proc")
def test_demo_survives_sigkill_and_stops_at_sigterm(
    tmp_path: Path,
) -> None:
    """The first start, the second start, and a crash in between."""
    home, port = tmp_path / "data", free_port()

    with running_demo(home, port) as first:
        assert "73 customers, 1,000 usage deltas" in first.output
        bill = first.paste()["data"]["customer"]["currentPeriod"]  # type: ignore[index]
        assert bill["total"] == bill["inStripe"]
        assert bill["invoice"]["status"] == "DRAFT"
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()

    with running_demo(home, port) as second:
        again = second.paste()["data"]["customer"]["currentPeriod"]  # type: ignore[index]
        assert again == bill
    assert second.process.returncode == 0
    assert second.left_behind() == []


def test_token_command_needs_no_server(tmp_path: Path) -> None:
    """`make -s token` prints one token and nothing else."""
    environment = {**os.environ, "BILLING_JWT_SECRET": "0123456789abcdef0123456789abcdef"}
    command = [sys.executable, "-m", "demo", "token", "--role", "support"]

    printed = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout

    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", printed)


@pytest.mark.parametrize("arguments", [["--role", "king"], ["--role", "customer"], []])
def test_unknown_role_is_rejected_with_the_remedy(arguments: list[str], tmp_path: Path) -> None:
    """The message shows the command to type."""
    environment = {**os.environ, "BILLING_JWT_SECRET": "0123456789abcdef0123456789abcdef"}
    command = [sys.executable, "-m", "demo", "token", *arguments]

    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert result.returncode == 1
    assert "make -s token ROLE=" in result.stderr


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("BILLING_PORT", "abc"),
        ("BILLING_PORT", "99999"),
        ("BILLING_HOST", "nohost.invalid"),
        ("BILLING_HOST", "192.0.2.1"),
    ],
)
def test_unusable_address_is_rejected_with_the_remedy(
    variable: str, value: str, tmp_path: Path
) -> None:
    """One sentence names the variable and what to give instead, and nothing is started."""
    message = failed_start(tmp_path, {"BILLING_PORT": str(free_port()), variable: value})

    [sentence] = message.splitlines()
    assert variable in sentence
    assert repr(value) in sentence
    assert "unset" in sentence


def test_empty_address_means_the_default(tmp_path: Path) -> None:
    """As in a settings file whose lines are there to be filled in."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # somebody else has it, which is as good
            taken.bind(("127.0.0.1", 8000))
            taken.listen()

        message = failed_start(tmp_path, {"BILLING_PORT": "", "BILLING_HOST": ""})

    assert message.startswith("Port 8000 is taken; choose another")


def failed_start(home: Path, chosen: dict[str, str]) -> str:
    """Return the error message of a `make up` that does not start."""
    environment = {name: value for name, value in os.environ.items() if name[:8] != "BILLING_"}
    result = subprocess.run(
        [sys.executable, "-m", "demo", "up"],
        env={**environment, "BILLING_DATA_DIR": str(home), **chosen},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 1
    return result.stderr
