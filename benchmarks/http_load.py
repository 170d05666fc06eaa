"""A load generator that costs little: keep-alive connections that each send the next request at once."""

import asyncio
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Run:
    """Results of one run: responses, seconds, the server's CPU seconds, and failed responses."""

    answers: int
    seconds: float
    cpu: float
    failures: int

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answers / self.seconds

    @property
    def micros(self) -> float:
        """The server's CPU time for one answer, in µs."""
        return self.cpu / max(self.answers, 1) * 1e6


def post(path: str, body: bytes, **headers: str) -> bytes:
    """A POST of JSON as bytes."""
    lines = [f"POST {path} HTTP/1.1", "Host: bench", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


async def load(
    port: int,
    process: int,
    requests: Iterator[bytes],
    connections: int,
    seconds: float,
    rate: float = math.inf,
) -> Run:
    """Send *requests* to *port* for *seconds*, or until they end, over so many *connections*.

    *process* is the server's pid; *rate* is how many a second at most, evenly. ConnectionError when the
    server hangs up.
    """
    loop = asyncio.get_running_loop()
    shared = _Shared(requests, loop.create_future(), connections, 1 / rate, loop.time())
    clients = [
        (await loop.create_connection(lambda: _Client(shared), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    before, began = cpu_seconds(process), time.perf_counter()
    shared.ends = began + seconds
    for client in clients:
        client.next()
    await shared.over
    run = Run(
        shared.answers,
        time.perf_counter() - began,
        cpu_seconds(process) - before,
        shared.failures,
    )
    for client in clients:
        client.transport.close()
    return run


async def listens(port: int) -> bool:
    """True if *port* of this machine accepts connections."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def cpu_seconds(process: int) -> float:
    """CPU seconds of *process* (a pid)."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@dataclass
class _Shared:
    requests: Iterator[bytes]
    over: "asyncio.Future[None]"
    open: int
    apart: float
    due: float
    ends: float = field(default=0.0)
    answers: int = 0
    failures: int = 0


class _Client(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, shared: _Shared) -> None:
        self._shared = shared
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def next(self) -> None:
        """Send the next request; without one this connection is done."""
        ended = time.perf_counter() >= self._shared.ends
        request = None if ended else next(self._shared.requests, None)
        if request is not None:
            self._shared.due += self._shared.apart
            self._shared.over.get_loop().call_at(self._shared.due, self.transport.write, request)
            return
        self._shared.open -= 1
        if not self._shared.open:
            self._shared.over.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._shared.over.done():
            self._shared.over.set_exception(ConnectionError(f"The server hung up: {exc}"))

    def data_received(self, data: bytes) -> None:
        received = self._received + data
        head, blank, body = received.partition(b"\r\n\r\n")
        if not blank or len(body) < _length(head):
            self._received = received
            return
        self._received = b""
        self._shared.answers += 1
        healthy = body.replace(b'"errors":[]', b"")
        good = received.startswith(b"HTTP/1.1 20") and b'"errors"' not in healthy
        self._shared.failures += not good
        self.next()


def _length(head: bytes) -> int:
    _, name, rest = head.lower().partition(b"content-length: ")
    return int(rest.split(b"\r", 1)[0]) if name else 0
