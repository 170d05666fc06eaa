"""Clients that stop reading: a stream, a socket and a whole answer end in time, at a shutdown too."""

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from gateway.http import send_timeout
from tests.support.gateway_server import SmallGateway, serve
from tests.support.wait import wait_until

FLOOD = {"query": "subscription { flood }"}
WHOLE = {"query": "{" + "".join(f"a{n}: hello(name: $name) " for n in range(40)) + "}"}


@pytest.fixture(autouse=True)
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second in place of ten."""
    monkeypatch.setattr(send_timeout, "SEND_SECONDS", 0.5)


@asynccontextmanager
async def stalled(address: str, *, socket: bool) -> AsyncIterator[None]:
    """A client that asks for a flood and reads its first bytes alone."""
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    try:
        writer.write(_handshake() if socket else _post(FLOOD))
        if socket:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(
                _frame({"type": "connection_init", "payload": {"Authorization": "Bearer ann"}})
            )
            writer.write(_frame({"type": "subscribe", "id": "1", "payload": FLOOD}))
        await reader.read(100)
        yield
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("socket", [False, True])
async def test_reader_that_stops_is_disconnected(
    address: str, small_gateway: SmallGateway, *, socket: bool
) -> None:
    """Its place is free again although it never closes the connection."""
    limiter = small_gateway.connection_limiter
    async with stalled(address, socket=socket):
        await wait_until(lambda: limiter._open == 1, "the stream has its place")
        await wait_until(lambda: limiter._open == 0, "the place is free")


@pytest.mark.parametrize("socket", [False, True])
async def test_shutdown_does_not_wait_for_a_reader_that_stops(
    small_gateway: SmallGateway,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    *,
    socket: bool,
) -> None:
    """Nor for the end of the server's grace, and without a traceback."""
    monkeypatch.setattr(send_timeout, "SEND_SECONDS", 60)
    monkeypatch.setattr(send_timeout, "SHUTDOWN_SEND_SECONDS", 0.3)
    server = serve(small_gateway.app)
    async with stalled(await server.__aenter__(), socket=socket):
        await _stops_producing(small_gateway)
        small_gateway.shutdown.set()
        await server.__aexit__(None, None, None)
    assert small_gateway.connection_limiter._open == 0
    for complaint in ("timeout graceful shutdown", "Exception in ASGI", "without completing"):
        assert complaint not in caplog.text


async def test_whole_answer_that_nobody_reads_is_dropped(address: str) -> None:
    """Its memory is freed, and its connection does not keep a shutdown waiting."""
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    name = {
        "query": "query ($name: String!) " + WHOLE["query"],
        "variables": {"name": "x" * 400_000},
    }
    writer.write(_post(name))
    await reader.read(100)
    await asyncio.sleep(1.5)
    assert await _rest(reader) < 40 * 400_000
    writer.close()


async def test_slow_reader_gets_everything(address: str) -> None:
    """Who reads a little within each interval is not disconnected."""
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1_000_000)
    name = {
        "query": "query ($name: String!) " + WHOLE["query"],
        "variables": {"name": "x" * 400_000},
    }
    writer.write(_post(name, connection="close"))
    received = 0
    while chunk := await reader.read(2_000_000):
        received += len(chunk)
        await asyncio.sleep(0.05)
    assert received > 40 * 400_000
    writer.close()


async def _stops_producing(small_gateway: SmallGateway) -> None:
    """Wait until every buffer is full."""
    before = -1
    while before != small_gateway.recorder.produced:
        before = small_gateway.recorder.produced
        await asyncio.sleep(0.2)


async def _rest(reader: asyncio.StreamReader) -> int:
    """The number of bytes until the connection ends."""
    received = 0
    with suppress(ConnectionResetError):
        while chunk := await reader.read(65_536):
            received += len(chunk)
    return received


def _post(body: object, connection: str = "keep-alive") -> bytes:
    text = json.dumps(body)
    accept = "text/event-stream" if body is FLOOD else "application/json"
    return (
        f"POST /graphql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ann\r\nAccept: {accept}\r\n"
        f"Connection: {connection}\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n{text}"
    ).encode()


def _handshake() -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        "GET /graphql HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
    ).encode()


def _frame(message: object) -> bytes:
    """*message* as a masked text frame, under a mask of zeros."""
    data = json.dumps(message).encode()
    assert len(data) < 126
    return bytes([0x81, 0x80 | len(data), 0, 0, 0, 0]) + data
