"""Somebody leaves before the answer is there: what only asks is stopped, what changes something is done."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from starlette.types import Message

from gateway.http import disconnect
from tests.gateway.test_websocket import connected, subscribe
from tests.gateway.waiting import until
from tests.support.gateway_server import Edge

Ask = Callable[[str, str], AbstractAsyncContextManager[None]]


def over_http(accept: str) -> Ask:
    """Asks by POST, and hangs up."""

    @asynccontextmanager
    async def ask(address: str, document: str) -> AsyncIterator[None]:
        body = json.dumps({"query": document})
        _, writer = await asyncio.open_connection(*address.split(":"))
        writer.write(
            f"POST /graphql HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ann\r\nAccept: {accept}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        yield
        writer.close()
        await writer.wait_closed()

    return ask


@asynccontextmanager
async def over_a_socket(address: str, document: str) -> AsyncIterator[None]:
    """Asks by a frame, and takes it back."""
    async with connected(address) as peer:
        await peer.begin()
        await peer.say(subscribe("1", document))
        yield
        await peer.say({"type": "complete", "id": "1"})


TRANSPORTS = pytest.mark.parametrize(
    "ask",
    [over_http("application/json"), over_http("text/event-stream"), over_a_socket],
    ids=["http", "sse", "socket"],
)


@TRANSPORTS
async def test_a_query_is_stopped_when_nobody_waits_for_it(
    address: str, edge: Edge, ask: Ask
) -> None:
    """A reader who gives up and asks again must not have two queries running."""
    async with ask(address, "{ slow }"):
        await until(lambda: "slow begun" in edge.events.seen)

    await until(lambda: "slow cancelled" in edge.events.seen)


@TRANSPORTS
async def test_a_mutation_is_done_even_if_nobody_waits_for_it(
    address: str, edge: Edge, ask: Ask
) -> None:
    """Somebody pressed the button; closing the tab does not take that back, nor halve it."""
    async with ask(address, "mutation { work }"):
        await until(lambda: "work begun" in edge.events.seen)
    async with asyncio.timeout(1), ask(address, "{ slow }"):
        await until(lambda: "slow begun" in edge.events.seen)
    await until(lambda: "slow cancelled" in edge.events.seen)  # so that leaving has been noticed
    edge.events.released.set()

    await until(lambda: "work done" in edge.events.seen)


async def test_nobody_looks_for_a_caller_whose_answer_comes_at_once() -> None:
    """It would cost every request a task."""

    async def receive() -> Message:
        raise AssertionError

    async def answer() -> str:
        await asyncio.sleep(0)
        return "answer"

    tasks = asyncio.all_tasks()

    assert await disconnect.while_awaited(answer(), receive) == "answer"
    assert tasks == asyncio.all_tasks()
