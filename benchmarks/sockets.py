"""Memory and CPU of an idle WebSocket: ``python -m benchmarks sockets``.

One process of the gateway holds so many sockets, each opened as a browser opens it (with compression
offered): greeted only, and following one customer with `billingChanged`. Beside it a bare Starlette route
that accepts and waits, in the same server with the same options. Told is what the process grew by, once for
each socket, and the CPU time that all of them take while nothing happens.
"""

import asyncio
import base64
import itertools
import os
import resource
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from benchmarks.http_load import cpu_seconds, listens
from benchmarks.reads import opened
from tests.support.stripe_catalog import Shop
from tests.support.system import System
from tests.support.wait import wait_until

SOCKETS = int(os.environ.get("SOCKETS", "2000"))
SUBJECTS = 8  # one token may hold 500 places
WARM = 100  # opened and closed first: what the first ones load stays loaded
IDLE = 5.0
OPTIONS = (
    "--no-access-log",
    *("--ws-max-size", "262144"),
    # SOCKETS_DEFLATE=true shows what compression takes: 32 KB a socket
    *("--ws-per-message-deflate", os.environ.get("SOCKETS_DEFLATE", "false")),
)
FOLLOW = "subscription($id: ID!) { billingChanged(customerId: $id) { reason at } }"


def bare() -> Starlette:
    """The floor: accepts, and waits for the other side to leave."""

    async def wait(socket: WebSocket) -> None:
        await socket.accept("graphql-transport-ws")
        async for _ in socket.iter_text():
            pass

    return Starlette(routes=[WebSocketRoute("/graphql", wait)])


@dataclass
class Peer:
    """One socket as a browser opens it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def connect(cls, port: int) -> "Peer":
        """Shake hands."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
        key = base64.b64encode(os.urandom(16)).decode()
        writer.write(
            f"GET /graphql HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Protocol: graphql-transport-ws\r\n"
            "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n".encode()
        )
        await reader.readuntil(b"\r\n\r\n")
        return cls(reader, writer)

    def send(self, frame: object) -> None:
        """Send one frame, masked with zeros."""
        text = orjson.dumps(frame)
        self.writer.write(
            b"\x81" + (0x80 | 126).to_bytes() + len(text).to_bytes(2) + bytes(4) + text
        )

    async def receive(self) -> None:
        """Wait for a frame."""
        head = await self.reader.readexactly(2)
        await self.reader.readexactly(head[1] & 0x7F)


def frames(token: str, customer: str, *, following: bool) -> list[object]:
    """The first frames of a client."""
    init = {"type": "connection_init", "payload": {"Authorization": f"Bearer {token}"}}
    payload = {"query": FOLLOW, "variables": {"id": customer}}
    return [init, {"type": "subscribe", "id": "1", "payload": payload}][: 2 if following else 1]


async def hold(port: int, says: Iterator[list[object]], count: int) -> list[Peer]:
    """Open *count* sockets, each after the next of *says* was heard."""
    peers = []
    for _, said in zip(range(count), says, strict=False):
        peer = await Peer.connect(port)
        for frame in said:
            peer.send(frame)
        if said:
            await peer.receive()
        peers.append(peer)
    return peers


async def measure(title: str, process: int, port: int, says: Iterator[list[object]]) -> float:
    """Bytes a socket."""
    for peer in await hold(port, says, WARM):
        peer.writer.close()
    await asyncio.sleep(1)
    before = memory(process)
    peers = await hold(port, says, SOCKETS)
    await asyncio.sleep(2)  # what was asked last is followed by then
    per_socket, used = (memory(process) - before) / SOCKETS, cpu_seconds(process)
    await asyncio.sleep(IDLE)
    idle = (cpu_seconds(process) - used) / IDLE
    print(
        f"{title:45} {SOCKETS:6} sockets {per_socket / 1024:7.1f} KB each {idle:7.1%} of a core",
        flush=True,
    )
    for peer in peers:
        peer.writer.close()
    await asyncio.sleep(1)
    return per_socket


def memory(process: int) -> int:
    """Private memory of *process* (a pid), in bytes."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


async def main() -> None:
    """Measure the floor, then the gateway; each in a process of its own, which nothing grew before."""
    _allow_files(2 * SOCKETS + 1000)
    async with opened() as bench:
        shop = Shop(bench.services)
        await shop.open()
        customer = await shop.customer()
        tokens = [bench.system.token("customer", [customer], f"s{n}") for n in range(SUBJECTS)]
        least = await _measured(bench.system, "benchmarks.sockets:bare", "a bare route", [[]])
        for title, following in (("greeted", False), ("following one customer", True)):
            says = [frames(token, customer, following=following) for token in tokens]
            measured = await _measured(bench.system, "gateway.app:create_app", title, says)
            print(f"{'':45} {measured / least:6.2f} of the floor", flush=True)


async def _measured(
    system: System, application: str, title: str, says: Sequence[list[object]]
) -> float:
    server = System(system.settings, system.logs)
    try:
        process = await _serve(server, application)
        return await measure(title, process, server.port, itertools.cycle(says))
    finally:
        server.stop()


async def _serve(system: System, application: str) -> int:
    """Serve *application*; the server's pid."""
    server = ("uvicorn", "--factory", application, "--port", str(system.port), *OPTIONS)
    process = system.start(*server)
    await wait_until(lambda: listens(system.port), "it listens", seconds=60)
    return process.pid


def _allow_files(count: int) -> None:
    """Raise the limit of open files for this process and those that it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))


if __name__ == "__main__":
    asyncio.run(main())
