"""Client disconnects: queries are cancelled, mutations run to completion."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from starlette.types import Message

from gateway.http import disconnect
from tests.support.gateway_server import SmallGateway
from tests.support.wait import wait_until
from tests.support.websocket_client import connect, subscribe

pytestmark = pytest.mark.usefixtures("both_executors")

Send = Callable[[str, str], AbstractAsyncContextManager[None]]


def by_http(accept: str) -> Send:
    """Send a POST request and close the connection."""

    @asynccontextmanager
    async def send(address: str, document: str) -> AsyncIterator[None]:
        body = json.dumps({"query": document})
        _, writer = await asyncio.open_connection(*address.split(":"))
        writer.write(
            f"POST /graphql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ann\r\nAccept: {accept}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        yield
        writer.close()
        await writer.wait_closed()

    return send


@asynccontextmanager
async def by_websocket(address: str, document: str) -> AsyncIterator[None]:
    """Start an operation and complete it."""
    async with connect(address) as ws_client:
        await ws_client.init()
        await ws_client.send(subscribe("1", document))
        yield
        await ws_client.send({"type": "complete", "id": "1"})


TRANSPORTS = pytest.mark.parametrize(
    "send",
    [by_http("application/json"), by_http("text/event-stream"), by_websocket],
    ids=["http", "sse", "socket"],
)


@TRANSPORTS
async def test_disconnect_cancels_a_query(
    address: str, small_gateway: SmallGateway, send: Send
) -> None:
    """A client that gives up and retries must not have two queries running."""
    async with send(address, "{ slow }"):
        await wait_until(lambda: "slow begun" in small_gateway.recorder.entries)

    await wait_until(lambda: "slow cancelled" in small_gateway.recorder.entries)


@TRANSPORTS
async def test_disconnect_does_not_cancel_a_mutation(
    address: str, small_gateway: SmallGateway, send: Send
) -> None:
    """A mutation that has started is neither undone nor left half done."""
    async with send(address, "mutation { work }"):
        await wait_until(lambda: "work begun" in small_gateway.recorder.entries)
    async with asyncio.timeout(1), send(address, "{ slow }"):
        await wait_until(lambda: "slow begun" in small_gateway.recorder.entries)
    await wait_until(
        lambda: "slow cancelled" in small_gateway.recorder.entries
    )  # the disconnect has been noticed
    small_gateway.recorder.released.set()

    await wait_until(lambda: "work done" in small_gateway.recorder.entries)


async def test_fast_response_starts_no_disconnect_watcher() -> None:
    """A watcher would cost every request a task."""

    async def receive() -> Message:
        raise AssertionError

    async def respond() -> str:
        await asyncio.sleep(0)
        return "response"

    tasks = asyncio.all_tasks()

    assert await disconnect.cancel_on_disconnect(respond(), receive) == "response"
    assert tasks == asyncio.all_tasks()
