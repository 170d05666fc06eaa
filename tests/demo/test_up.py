"""`make up` on a new machine: it serves a bill, finds its data again, and leaves no process behind."""

import json
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
from typing import Any

import pytest

from tests.support.system import free_port

ROOT = Path(__file__).parents[2]
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
    up = Demo(process, log_path, home, port)
    try:
        up.wait_until_ready()
        yield up
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


class Demo:
    """A running demo and its output."""

    def __init__(
        self, process: "subprocess.Popen[bytes]", log_path: Path, home: Path, port: int
    ) -> None:
        self.process = process
        self.port = port
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

    def paste(self) -> Any:
        """Run the commands that the output says to paste, in a shell, and return the response."""
        [curl] = re.findall(r"^\s+(curl .*)", self.output, re.MULTILINE)
        return self.run(curl)

    def run(self, command: str) -> Any:
        """Run *command* in a shell, after the ``export`` lines of the output; return its JSON response."""
        exports = re.findall(r"^\s+(export .*)", self.output, re.MULTILINE)
        command = "\n".join([*exports, command]).replace("127.0.0.1:8000", f"127.0.0.1:{self.port}")
        answer = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, check=True, timeout=60
        )
        return json.loads(answer.stdout)

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
    """The first start, the second start, and a crash in between; what the docs say to paste works on the first."""
    home, port = tmp_path / "data", free_port()

    with running_demo(home, port) as first:
        assert "73 customers, 1,000 usage deltas" in first.output
        assert re.search(rf"  http://127\.0\.0\.1:{port}/#token=[\w.-]+\n", first.output)
        bill = first.paste()["data"]["customer"]
        assert bill["currentPeriod"]["invoice"]["status"] == "DRAFT"
        for page in (ROOT / "README.md", ROOT / "docs" / "metering.md"):
            _assert_examples_work(page, first)
        _assert_account_lives(first)
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()

    with running_demo(home, port) as second:
        again = second.paste()["data"]["customer"]
        assert again["currentPeriod"]["invoice"] == bill["currentPeriod"]["invoice"]
    assert second.process.returncode == 0
    assert second.left_behind() == []


def _assert_examples_work(page: Path, demo: Demo) -> None:
    """Each command of *page* that a response follows answers what the page shows, but for figures and ids."""
    examples = re.findall(r"```sh\n([^`]*)```\n```json\n([^`]*)```", page.read_text())
    assert examples
    for command, shown in examples:
        assert _words(demo.run(command)) == _words(json.loads(shown))


def _words(answer: Any) -> Any:
    """Return *answer* without what differs between two demos: numbers, dates, ids, freshness and cost."""
    if isinstance(answer, dict):
        return {
            name: _words(value)
            for name, value in answer.items()
            if name not in ("extensions", "freshness", "ledgerEpoch")
        }
    if isinstance(answer, list):
        return [_words(value) for value in answer]
    return re.sub(r"in_\w+|-?\d[\d:.,TZ-]*", "#", answer) if isinstance(answer, str) else answer


CUSTOMERS = """{ viewer { customers(first: 100) { nodes { id name delinquent hold { reason } creditBalance { rounded }
  currentPeriod { total { amount } } } } } }"""
INVOICES = """{ customer(id: \\"%s\\") { defaultPaymentMethod { last4 } invoices(first: 5) { nodes { status
  usagePeriod { state usage { key } } } } } }"""


def _assert_account_lives(demo: Demo) -> None:
    """Distinct names, a spread of bills, billed months with what they are made of, a declined card, a hold."""
    customers = _as_support(demo, CUSTOMERS)["viewer"]["customers"]["nodes"]
    assert len({customer["name"] for customer in customers}) == 73
    bills = [float(customer["currentPeriod"]["total"]["amount"]) for customer in customers]
    assert sum(bill > 2 for bill in bills) > 60
    assert sum(bill > 100 for bill in bills) > 10
    assert sum(customer["hold"] is not None for customer in customers) == 1
    assert sum(customer["creditBalance"]["rounded"] == "USD 50.00" for customer in customers) == 1

    [declined] = [customer["id"] for customer in customers if customer["delinquent"]]
    shown = _as_support(demo, INVOICES % declined)["customer"]
    assert shown["defaultPaymentMethod"] == {"last4": "0341"}
    assert "OPEN" in [invoice["status"] for invoice in shown["invoices"]["nodes"]]

    owing = next(customer["id"] for customer in customers if customer["name"] == "Atlas Orion")
    invoices = _as_support(demo, INVOICES % owing)["customer"]["invoices"]["nodes"]
    billed = [invoice for invoice in invoices if invoice["status"] != "DRAFT"]
    assert sorted(invoice["status"] for invoice in billed) == ["OPEN", "PAID", "PAID"]
    assert all(invoice["usagePeriod"]["state"] == "CLOSED" for invoice in billed)
    assert all(len(invoice["usagePeriod"]["usage"]) > 10 for invoice in billed)


def _as_support(demo: Demo, query: str) -> Any:
    body = '{"query": "%s"}' % query.replace("\n", " ")  # noqa: UP031 braces are GraphQL's
    answer = demo.run(
        f'curl -s http://127.0.0.1:{demo.port}/graphql -H "Authorization: Bearer $SUPPORT" '
        f"-H 'Content-Type: application/json' -d '{body}'"
    )
    assert "errors" not in answer, answer
    return answer["data"]


def test_older_data_are_refused_with_the_remedy(tmp_path: Path) -> None:
    """Data of a demo with other customers would be mixed with today's."""
    (tmp_path / "demo.json").write_text('{"jwt_secret": "an older demo had one"}')

    message = failed_start(tmp_path, {"BILLING_PORT": str(free_port())})

    assert f"rm -r {tmp_path}" in message


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


def test_token_for_a_name_is_refused_with_the_remedy() -> None:
    """A customer is named by an id; a token for anything else would only fail later, in the panel."""
    environment = {**os.environ, "BILLING_JWT_SECRET": "0123456789abcdef0123456789abcdef"}
    command = [sys.executable, "-m", "demo", "token", "--role", "customer", "--customer", "Orion"]

    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert (result.returncode, result.stdout) == (1, "")
    assert "'Orion'" in result.stderr
    assert "cus_…" in result.stderr


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
