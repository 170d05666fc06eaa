"""`make up` as a stranger meets it: it serves a bill, finds its data again, and leaves nothing behind."""

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
def made_up(home: Path, port: int) -> Iterator["Up"]:
    """Run ``python -m demo up`` on *home* until it says that it is ready."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("BILLING_")
    }
    environment |= {"BILLING_DATA_DIR": str(home), "BILLING_PORT": str(port)}
    said = home.with_suffix(f".{time.monotonic_ns()}.log")
    with said.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "demo", "up"],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    up = Up(process, said, home)
    try:
        up.wait_until_ready()
        yield up
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


class Up:
    """A running demo, and what it said."""

    def __init__(self, process: "subprocess.Popen[bytes]", said: Path, home: Path) -> None:
        self.process = process
        self._said = said
        self._home = home

    @property
    def said(self) -> str:
        """What stands on the terminal."""
        return self._said.read_text()

    def wait_until_ready(self, seconds: float = 150) -> None:
        """Poll what it says."""
        deadline = time.monotonic() + seconds
        while READY not in self.said:
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.1)

    def paste(self) -> dict[str, object]:
        """Do what it says one should paste, with a shell, and return the answer."""
        lines = [line for line in self.said.splitlines() if re.match(r"\s+(export|curl) ", line)]
        answer = subprocess.run(
            ["bash", "-c", "\n".join(lines)], capture_output=True, text=True, check=True
        ).stdout
        found: dict[str, object] = httpx.Response(200, text=answer).json()
        return found

    def left_behind(self) -> list[str]:
        """Command lines of processes that still work on this demo's data or ports."""
        found = []
        for each in Path("/proc").glob("[0-9]*/environ"):
            try:
                mine = f"BILLING_DATA_DIR={self._home}".encode() in each.read_bytes()
            except OSError:
                continue
            if mine and each.parent.name != str(self.process.pid):
                found.append((each.parent / "cmdline").read_text().replace("\0", " "))
        return found


@pytest.mark.timeout(420)
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for left-over processes in /proc")
def test_up_shows_a_bill_and_finds_it_again_after_sigkill_and_ends_at_sigterm(
    tmp_path: Path,
) -> None:
    """The first thing a stranger does, and the second, and what happens when the machine is unkind."""
    home, port = tmp_path / "data", free_port()

    with made_up(home, port) as first:
        assert "73 customers, 1,000 usage deltas" in first.said
        bill = first.paste()["data"]["customer"]["currentPeriod"]  # type: ignore[index]
        assert bill["total"] == bill["inStripe"]
        assert bill["invoice"]["status"] == "DRAFT"
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()

    with made_up(home, port) as second:
        again = second.paste()["data"]["customer"]["currentPeriod"]  # type: ignore[index]
        assert again == bill
    assert second.process.returncode == 0
    assert second.left_behind() == []


def test_a_token_can_be_had_without_a_server(tmp_path: Path) -> None:
    """`make -s token` prints one token and nothing else."""
    environment = {**os.environ, "BILLING_JWT_SECRET": "0123456789abcdef0123456789abcdef"}
    command = [sys.executable, "-m", "demo", "token", "--role", "support"]

    printed = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout

    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", printed)


@pytest.mark.parametrize("arguments", [["--role", "king"], ["--role", "customer"], []])
def test_a_wrong_role_is_refused_with_the_cure(arguments: list[str], tmp_path: Path) -> None:
    """Somebody who mistypes reads what to type."""
    environment = {**os.environ, "BILLING_JWT_SECRET": "0123456789abcdef0123456789abcdef"}
    command = [sys.executable, "-m", "demo", "token", *arguments]

    refused = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert refused.returncode == 1
    assert "make -s token ROLE=" in refused.stderr


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("BILLING_PORT", "abc"),
        ("BILLING_PORT", "99999"),
        ("BILLING_HOST", "nohost.invalid"),
        ("BILLING_HOST", "192.0.2.1"),
    ],
)
def test_an_address_that_cannot_be_served_is_refused_with_the_cure(
    variable: str, value: str, tmp_path: Path
) -> None:
    """One sentence that names the variable and what to give instead, and nothing is started."""
    refused = refused_up(tmp_path, {"BILLING_PORT": str(free_port()), variable: value})

    [sentence] = refused.splitlines()
    assert variable in sentence
    assert repr(value) in sentence
    assert "unset" in sentence


def test_an_empty_address_is_none(tmp_path: Path) -> None:
    """As in a file of settings whose lines are there to be filled in: the usual one is taken."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # somebody else has it, which is as good
            taken.bind(("127.0.0.1", 8000))
            taken.listen()

        refused = refused_up(tmp_path, {"BILLING_PORT": "", "BILLING_HOST": ""})

    assert refused.startswith("Port 8000 is taken; choose another")


def refused_up(home: Path, chosen: dict[str, str]) -> str:
    """What `make up` says when it does not start."""
    environment = {name: value for name, value in os.environ.items() if name[:8] != "BILLING_"}
    refused = subprocess.run(
        [sys.executable, "-m", "demo", "up"],
        env={**environment, "BILLING_DATA_DIR": str(home), **chosen},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert refused.returncode == 1
    return refused.stderr
