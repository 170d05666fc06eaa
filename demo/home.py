"""The demo's data folder (``.data/``), with the secrets and ports that it reuses at each start."""

import errno
import fcntl
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HOME = Path(os.environ.get("BILLING_DATA_DIR", ".data")).resolve()
STATE_FILE = HOME / "demo.json"
RELEASE_SECONDS = 10  # the processes of a killed demo take one or two to release their ports


class DemoError(SystemExit):
    """Ends the demo with a message that says what to do."""


@contextmanager
def single_instance() -> Iterator[None]:
    """Lock the data folder; DemoError when another demo runs on it."""
    HOME.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (HOME / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoError(f"Another `make up` is running on {HOME}; stop it first.") from None
        yield


def get_or_store(name: str, default: Any) -> Any:
    """Return the value that an earlier start stored under *name*; store *default* if there is none."""
    state = _state()
    return state[name] if name in state else store(name, default)


def store(name: str, value: Any) -> Any:
    """Store *value* under *name* for later starts, and return it."""
    new = STATE_FILE.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_text(json.dumps(_state() | {name: value}, indent=2))
    new.replace(STATE_FILE)
    return value


def check_sample(name: str) -> None:
    """Raise DemoError when the data folder has another sample than *name*, of an older version."""
    loaded = "older" if _state() and "sample" not in _state() else get_or_store("sample", name)
    if loaded != name:
        raise DemoError(
            f"The data in {HOME} are those of an older demo; remove that folder (`rm -r {HOME}`) and start again."
        )


def _state() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(STATE_FILE.read_text()) if STATE_FILE.exists() else {}
    return found


def secret(name: str, prefix: str = "") -> str:
    """Return a random secret, created at the first start."""
    return str(get_or_store(name, prefix + secrets.token_hex(24)))


def port(name: str) -> int:
    """Return a free port, the same one at every start."""
    number = int(get_or_store(f"{name}_port", free_port()))
    if not wait_until_free("127.0.0.1", number):
        raise DemoError(
            f"Port {number}, which {name} used before, is taken by another program; "
            f"stop that program, or remove {STATE_FILE} to start with new data addresses.",
        )
    return number


def free_port() -> int:
    """Return a port on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_free(host: str, number: int) -> bool:
    """Return True when a server can listen on *number*, at once or once a killed demo has released it.

    OSError or UnicodeError when none ever can, as on a *host* that is not this machine.
    """
    deadline = time.monotonic() + (RELEASE_SECONDS if STATE_FILE.exists() else 0)
    while not _is_free(host, number):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _is_free(host: str, number: int) -> bool:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
    return True
