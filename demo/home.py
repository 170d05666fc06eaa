"""What the demo remembers between starts: secrets, ports, and where its data lie (``.data/``)."""

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
REMEMBERED = HOME / "demo.json"
LEAVING_SECONDS = 10  # the parts of a demo that was killed take one or two


class DemoRefused(SystemExit):
    """The demo cannot start; the message says what to do."""


@contextmanager
def only_one() -> Iterator[None]:
    """Hold the data folder; a second demo on the same data is refused."""
    HOME.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (HOME / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoRefused(f"Another `make up` is running on {HOME}; stop it first.") from None
        yield


def remembered(name: str, fresh: Any) -> Any:
    """What an earlier start kept under *name*, or *fresh*, kept from now on."""
    kept = json.loads(REMEMBERED.read_text()) if REMEMBERED.exists() else {}
    if name not in kept:
        kept[name] = fresh
        keep = REMEMBERED.with_suffix(".new")
        keep.touch(mode=0o600)
        keep.write_text(json.dumps(kept, indent=2))
        keep.replace(REMEMBERED)
    return kept[name]


def secret(name: str, prefix: str = "") -> str:
    """A secret of this demo's own, made at its first start."""
    return str(remembered(name, prefix + secrets.token_hex(24)))


def port(name: str) -> int:
    """A free port, the same one at every start."""
    number = int(remembered(f"{name}_port", free_port()))
    if not becomes_free("127.0.0.1", number):
        raise DemoRefused(
            f"Port {number}, which {name} used before, is taken by another program; "
            f"stop that program, or remove {REMEMBERED} to start with new data addresses.",
        )
    return number


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def becomes_free(host: str, number: int) -> bool:
    """Whether a server can listen on *number*: now, or when the parts of a killed demo have gone.

    OSError or UnicodeError when none ever can, as on a *host* that is not this machine.
    """
    deadline = time.monotonic() + (LEAVING_SECONDS if REMEMBERED.exists() else 0)
    while not _is_free(host, number):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _is_free(host: str, number: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, number))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
    return True
