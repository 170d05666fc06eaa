"""Throughput and memory of the Stripe sandbox: ``python -m benchmarks.sandbox [customers]``.

1. Simple calls a second, limits and delays off, beside their floor: the same client, server and
   connections with an application that only returns as many bytes. "Per core" divides by the CPU
   time that the process itself used, so that neighbours on the machine do not count.
2. Memory after *customers* customers with a draft each (100,000 unless told, 0 for none), made over HTTP with
   an idempotency key a call, as stripe-python sends it.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import orjson

from tests.support.stripe_sandbox import StripeSandbox, start_sandbox

CALLS: Final = 6000
CONNECTIONS: Final = 16
TICKS: Final = os.sysconf("SC_CLK_TCK")
FLOOR: Final = """
import socket, sys, uvicorn
body = b"x" * 1000
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    await receive()
    headers = [(b"content-length", b"1000")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
print(listener.getsockname()[1], flush=True)
config = uvicorn.Config(app, http="httptools", loop="uvloop", log_level="error", lifespan="off")
uvicorn.Server(config).run(sockets=[listener])
"""
Request = Callable[[int], bytes]


async def main(customers: int = 100_000) -> None:
    """Measure both and print the figures."""
    with _floor() as (port, pid):
        floor = await _measure(
            "floor: uvicorn and nothing else", port, pid, lambda _: _get("/v1/x")
        )
    with start_sandbox("--no-limits", "--no-latency") as sandbox:
        await _speed(sandbox, floor)
    if customers:
        with start_sandbox("--no-limits", "--no-latency") as sandbox:
            await _memory(sandbox, customers)


async def _speed(sandbox: StripeSandbox, floor: float) -> None:
    port, pid = _where(sandbox)
    customer = (await _one(port, _post("/v1/customers", b"name=A", "c")))["id"]
    draft = (await _one(port, _post("/v1/invoices", f"customer={customer}".encode(), "i")))["id"]
    form = b"&".join(b"lines[%d][amount]=%d" % (n, n) for n in range(3))
    added = await _one(port, _post(f"/v1/invoices/{draft}/add_lines", form, "a"))
    line = added["lines"]["data"][0]["id"]

    def update(n: int) -> bytes:
        body = f"lines[0][id]={line}&lines[0][amount]={n}&invoice_metadata[seq]={n}"
        return _post(f"/v1/invoices/{draft}/update_lines", body.encode(), f"u{n}")

    shapes: dict[str, Request] = {
        "retrieve a customer": lambda _: _get(f"/v1/customers/{customer}"),
        "create a customer": lambda n: _post("/v1/customers", b"name=A&metadata[org]=o", f"k{n}"),
        "retrieve an invoice of 3 lines": lambda _: _get(f"/v1/invoices/{draft}"),
        "create a draft": lambda n: _post("/v1/invoices", f"customer={customer}".encode(), f"d{n}"),
        "update a line": update,
        "list a customer's 10 newest drafts": lambda _: _get(f"/v1/invoices?customer={customer}"),
    }
    for name, request in shapes.items():
        await _measure(name, port, pid, request, floor)


async def _memory(sandbox: StripeSandbox, customers: int) -> None:
    port, pid = _where(sandbox)
    empty = _resident(pid)
    ids: list[str] = []

    def keep(body: bytes) -> None:
        ids.append(orjson.loads(body)["id"])

    started = time.monotonic()
    form = "name=Customer+{}&email=c{}@example.com&metadata[org]=org_{}"
    await _run(
        port,
        customers,
        lambda n: _post("/v1/customers", form.format(n, n, n).encode(), f"gw1:customer:{n}"),
        keep,
    )
    body = "customer={}&currency=usd&metadata[gw_period]=2026-11"
    await _run(
        port,
        customers,
        lambda n: _post("/v1/invoices", body.format(ids[n]).encode(), f"gw1:draft:{n}"),
    )
    used = _resident(pid)
    print(
        f"{customers:,} customers with a draft each: {used / 2**20:,.0f} MiB resident "
        f"(empty {empty / 2**20:,.0f}), {(used - empty) / customers:,.0f} bytes each; "
        f"made in {time.monotonic() - started:.0f} s"
    )


async def _measure(
    name: str, port: int, pid: int, request: Request, floor: float | None = None
) -> float:
    await _run(port, CALLS // 10, lambda n: request(-1 - n))
    cpu, started = _cpu(pid), time.monotonic()
    await _run(port, CALLS, request)
    wall, used = time.monotonic() - started, _cpu(pid) - cpu
    per_core = CALLS / used
    share = f", {per_core / floor:.0%} of the floor" if floor else ""
    print(f"{name:36} {CALLS / wall:7,.0f}/s by the clock {per_core:7,.0f}/s per core{share}")
    return per_core


async def _run(
    port: int, calls: int, request: Request, keep: Callable[[bytes], None] = lambda _: None
) -> None:
    numbers = iter(range(calls))
    await asyncio.gather(*(_worker(port, numbers, request, keep) for _ in range(CONNECTIONS)))


async def _worker(
    port: int, numbers: Iterator[int], request: Request, keep: Callable[[bytes], None]
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for number in numbers:
        writer.write(request(number))
        keep(await _answer(reader))
    writer.close()


async def _answer(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(head.decode())
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
    return await reader.readexactly(int(length))


async def _one(port: int, request: bytes) -> Any:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await _answer(reader)
    writer.close()
    return orjson.loads(answer)


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk_test_1\r\n\r\n".encode()


def _post(path: str, body: bytes, key: str) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk_test_1\r\n"
        f"idempotency-key: {key}\r\ncontent-type: application/x-www-form-urlencoded\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@contextmanager
def _floor() -> Iterator[tuple[int, int]]:
    process = subprocess.Popen([sys.executable, "-c", FLOOR], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline()), process.pid
    finally:
        process.terminate()
        process.wait()


def _where(sandbox: StripeSandbox) -> tuple[int, int]:
    assert sandbox.process is not None
    return int(sandbox.url.rpartition(":")[2]), sandbox.process.pid


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    asyncio.run(main(*(int(word) for word in sys.argv[1:] if word.isdigit())))
